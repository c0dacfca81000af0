/* nat_tool.h: the parts of the test's program. Each command prints one line a fact, and ends at its input's end. */
#ifndef ATOLL_TESTS_NAT_TOOL_H
#define ATOLL_TESTS_NAT_TOOL_H

/* What A says to B and B to A, over TLS; nobody between may see it. */
#define NAT_SECRET "call me Ishmael, some years ago"
/* What is said in the clear, so that a capture that sees nothing is noticed. */
#define NAT_CANARY "having little or no money in my purse"

int nat_capture(void);                                    /* reads every packet of this namespace */
int nat_shout(const char *host);                          /* sends the canary in a UDP packet */
int nat_gateway(const char *inside, const char *outside); /* speaks NAT-PMP on its inner address */

#endif
