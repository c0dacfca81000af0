/* printable.h: is foreign text fit for a terminal? Pure.
 * Well-formed UTF-8 (RFC 3629), no control characters (C0, DEL, C1), no bidirectional overrides, no line separators. */
#ifndef ATOLL_WIRE_PRINTABLE_H
#define ATOLL_WIRE_PRINTABLE_H

#include "base/bytes.h"

bool at_printable(struct at_span text);

#endif
