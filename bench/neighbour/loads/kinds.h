/*
 * One kind of work each, for a program and its neighbour: what presses on one part of a machine and on little else.
 *
 *   compute    arithmetic in registers
 *   bandwidth  copies between blocks far larger than the inner caches
 *   cache      a walk in random order through a block as large as an inner cache
 *   memory     growth: maps, touches and gives back pages
 *   io         writes a file through to its device, and removes it
 */
#ifndef GLEANER_NEIGHBOUR_KINDS_H
#define GLEANER_NEIGHBOUR_KINDS_H

#include <stdint.h>

enum kind { COMPUTE, BANDWIDTH, CACHE, MEMORY, IO, KINDS };

extern const char *const kind_names[KINDS];

/* state is what a kind works on; all its memory is there from the start, so that a unit measures the work alone. */
struct state {
    enum kind kind;
    uint64_t bytes;
    char *block;
    uint64_t sum; /* keeps the compiler from leaving the work out */
};

/* begin prepares; bytes is the size of what is worked on, 0 for the kind's own. -1: no memory. */
int begin(struct state *s, enum kind kind, uint64_t bytes);

/* work does a number of units, each a millisecond or a few. -1: the kind cannot be done here. */
int work(struct state *s, uint64_t units);

void end(struct state *s);

uint64_t now_ns(void);

#endif
