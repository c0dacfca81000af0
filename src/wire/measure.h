/* measure.h: what a member says of its own machine and links, for the ledger (record MEASURE). Pure; Exact: yes.
 *
 * Figures are rounded: a code stands for a value with four significant bits, so two codes 8 apart differ by a factor of
 * two, what is said is no more exact than it was measured, and there is one way to say it.
 *
 *   code c   0 .. 7   8 .. 255
 *   value    c        (8 + c mod 8) * 2^(c / 8 - 1)
 *
 * On the wire the links are one field of AT_MEASURE_LINK_BYTES each, replicas ascending:
 *   offset  bytes
 *   0       2      replica (little-endian)
 *   2       1      round trip, code of microseconds, not 0
 * and their rates another, of one byte for each link, in the same order: code of kbit/s that came from there over it, at
 * least (base/line_rate.h); 0: not known. Where no rate is known the field is absent. */
#ifndef ATOLL_WIRE_MEASURE_H
#define ATOLL_WIRE_MEASURE_H

#include "base/bytes.h"

#define AT_MEASURE_LINKS      16
#define AT_MEASURE_LINK_BYTES 3

struct at_measure {
    uint8_t speed;  /* code of MFLOP/s of training, as measured by steps of training; not 0 */
    uint8_t memory; /* code of MiB that it offers, not 0 */
    uint8_t link_count;
    struct at_measure_link {
        uint16_t replica;
        uint8_t rtt, rate;
    } link[AT_MEASURE_LINKS]; /* to the nearest of those it has links with; replicas ascending */
};

uint8_t at_measure_code(uint64_t value); /* of the largest value that is not larger */
uint64_t at_measure_value(uint8_t code);

/* The links' bytes; how many: AT_MEASURE_LINK_BYTES * link_count. */
size_t at_measure_pack(const struct at_measure *m, uint8_t ret[AT_MEASURE_LINKS * AT_MEASURE_LINK_BYTES]);
/* Fills ret_m's links. False: another size, or more than there may be. */
bool at_measure_unpack(struct at_span bytes, struct at_measure *ret_m);
/* The links' rates: one byte each, or none at all. */
size_t at_measure_pack_rates(const struct at_measure *m, uint8_t ret[AT_MEASURE_LINKS]);
/* Fills the rates of ret_m's links, which are there already. False: not as many. */
bool at_measure_unpack_rates(struct at_span bytes, struct at_measure *ret_m);
/* NULL: it is one; else the field that is not right. */
const char *at_measure_wrong(const struct at_measure *m);

#endif
