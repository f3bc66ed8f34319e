/* wire ring | wire ofi PROVIDER HOST | wire call ADDRESS LOCAL CARRIER PROVIDER TOKEN-FILE LIBRARY SYMBOL SPIN-NS BUFFER
 * Reads jobs from standard input and answers each with a line "COUNT TOTAL-NS" and so many 32-bit samples. */
#define _GNU_SOURCE
#include "wire.h"

#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>

enum { MAX_ROUNDS = 10 * 1000 * 1000, THINK_NS = 100 * 1000 };

static double tick_ns = 1;

_Noreturn void die(const char *what, const char *why) {
	fprintf(stderr, "wire: %s: %s\n", what, why);
	exit(1);
}

static uint64_t now(void) {
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

uint64_t ticks(void) {
#if defined(__x86_64__)
	return __builtin_ia32_rdtsc();
#else
	return now();
#endif
}

void calibrate(void) {
#if defined(__x86_64__)
	uint64_t begin = now(), first = ticks(), end;

	do end = now();
	while (end - begin < 20 * 1000 * 1000);
	tick_ns = (double)(end - begin) / (double)(ticks() - first);
#endif
}

uint64_t ticks_ns(uint64_t t) { return (uint64_t)((double)t * tick_ns); }

void sample(struct samples *s, uint64_t t) {
	uint64_t ns = ticks_ns(t);
	s->ns[s->count++] = ns > UINT32_MAX ? UINT32_MAX : (uint32_t)ns;
}

uint64_t think(uint32_t mode, uint64_t last) {
	struct timespec pause = {.tv_nsec = THINK_NS};

	if (mode != MODE_BLOCK) return last;
	nanosleep(&pause, NULL);
	return ticks();
}

void settle(int last) {
	cpu_set_t all, one;
	int found = -1;

	if (sched_getaffinity(0, sizeof all, &all) != 0) return;
	for (int i = 0; i < CPU_SETSIZE; i++) {
		if (CPU_ISSET(i, &all) && (found < 0 || last)) found = i;
	}
	CPU_ZERO(&one);
	CPU_SET(found, &one);
	sched_setaffinity(0, sizeof one, &one);
}

void serve(runner *run, void *state) {
	struct job j;

	printf("ready\n");
	fflush(stdout);
	while (scanf("%u %u %u %u", &j.size, &j.rounds, &j.mode, &j.in_flight) == 4) {
		struct samples s = {0};
		if (j.rounds > MAX_ROUNDS) die("job", "too many rounds");
		s.ns = malloc(sizeof *s.ns * (j.rounds + 1));
		if (s.ns == NULL) die("job", "out of memory");
		memset(s.ns, 0, sizeof *s.ns * (j.rounds + 1)); /* no page faults while measuring */
		run(state, &j, &s);
		printf("%u %llu\n", s.count, (unsigned long long)s.total_ns);
		fwrite(s.ns, sizeof *s.ns, s.count, stdout);
		fflush(stdout);
		free(s.ns);
	}
}

int main(int argc, char **argv) {
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	calibrate();
	if (argc == 2 && strcmp(argv[1], "ring") == 0) {
		bare_ring();
	} else if (argc == 4 && strcmp(argv[1], "ofi") == 0) {
		bare_ofi(argv[2], argv[3]);
	} else if (argc == 11 && strcmp(argv[1], "call") == 0) {
		product(argv + 2);
	} else {
		die("usage", "wire ring | wire ofi PROVIDER HOST | wire call ...");
	}
	return 0;
}
