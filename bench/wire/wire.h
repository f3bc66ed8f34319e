/* wire measures round trips for 'gleaner bench invoke': over a bare ring, over bare libfabric, and through the product's C
 * client. The bare ones are written here, from scratch, and use nothing of the product's data path. */
#ifndef GLEANER_WIRE_BENCH_H
#define GLEANER_WIRE_BENCH_H

#include <stddef.h>
#include <stdint.h>

enum mode { MODE_SPIN = 0, MODE_BLOCK = 1, MODE_STREAM = 2 };

/* One measurement, asked for on a line of standard input: "SIZE ROUNDS MODE IN-FLIGHT". */
struct job {
	uint32_t size, rounds, mode, in_flight;
};

/* What it gave: one sample per round trip in nanoseconds, and how long all took. */
struct samples {
	uint32_t *ns;
	uint32_t count;
	uint64_t total_ns;
};

uint64_t ticks(void);
/* calibrate measures what a tick lasts, once. */
void calibrate(void);
/* settle keeps this process on the first processor that it may use, or on the last. */
void settle(int last);
uint64_t ticks_ns(uint64_t ticks);
void sample(struct samples *s, uint64_t ticks);
/* think lets the other side fall asleep before a round trip in MODE_BLOCK. It returns when the trip begins. */
uint64_t think(uint32_t mode, uint64_t last);

static inline void pause_cpu(void) {
#if defined(__x86_64__)
	__builtin_ia32_pause();
#endif
}

_Noreturn void die(const char *what, const char *why);

/* Each serves jobs until standard input ends. */
typedef void runner(void *state, const struct job *j, struct samples *s);
void serve(runner *run, void *state);

void bare_ring(void);
void bare_ofi(const char *provider, const char *host);
void product(char **argv);

#endif
