/* float_mode.h: does this process compute as contract F32-1 wants it: IEEE 754 binary32, round to nearest with ties to even,
 * subnormal numbers kept? The mode is the thread's (MXCSR on x86, FPCR on ARM), and not only a program sets it: a library
 * built with -ffast-math does when it is loaded, and a caller that changed the rounding leaves it to us. Results would differ
 * from everybody else's, without any other sign.
 *
 * On Linux a new thread begins with the mode of the one that creates it, so that one look before the threads are made
 * (at_exec_init, at_pool_init) holds for all of them. */
#ifndef ATOLL_TENSOR_FLOAT_MODE_H
#define ATOLL_TENSOR_FLOAT_MODE_H

#include "base/err.h"

/* AT_E_ENV: the mode of this thread is another one; diag says what it does. */
at_err at_float_mode_check(struct at_diag *diag);

#endif
