/* The canary of guard_heap.c: reads one float past an array, and must not live to tell. */
#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv)
{
    volatile float *x = malloc(40);
    if (!x) return 0;
    printf("inside: %g\n", (double)(x[9] = 1));
    fflush(stdout);
    printf("behind: %g\n", (double)x[9 + argc]);
    return 0;
}
