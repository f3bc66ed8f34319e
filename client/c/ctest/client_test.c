/* libgleaner against real executors; package test/libgleaner starts them and runs this with the name of a part. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../../../fabric/ctest/tap.h"
#include "../gleaner.h"

enum { BIG = 700 * 1000, WINDOW = 24 };

static gleaner *g;

static void fill(unsigned char *b, uint32_t size, unsigned seed, char what) {
	for (uint32_t i = 0; i < size; i++) b[i] = (unsigned char)((i * 31 + seed) % 251);
	if (size > 0) b[0] = (unsigned char)what;
}

static int right(const unsigned char *in, const unsigned char *out, uint32_t size) {
	for (uint32_t i = 1; i < size; i++) {
		if (out[i] != in[size - i]) return 0;
	}
	return size == 0 || out[0] == in[0];
}

static void sizes(void) {
	static const uint32_t all[] = {0, 1, 64, 4096, 4097, 65536, 65537, BIG};
	unsigned char *in = malloc(BIG), *out = malloc(BIG);

	for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
		char what[64];
		uint32_t n = 7;
		fill(in, all[i], (unsigned)i, 'r');
		snprintf(what, sizeof what, "%u bytes there and back", all[i]);
		ok(gleaner_run(g, in, all[i], out, all[i], &n) == GLEANER_OK && n == all[i] && right(in, out, n), what);
	}
	free(in);
	free(out);
}

static void zero_copy(void) {
	gleaner_call *calls[40];
	int good = 1, half = 0;

	for (int round = 0; round < 3; round++) {
		for (unsigned i = 0; i < 40; i++) {
			uint32_t size = i % 8 == 0 ? 100000 : 1000 + i;
			if (round == 0) good &= gleaner_alloc(g, size, size, &calls[i]) == GLEANER_OK;
			fill(gleaner_args(calls[i]), size, i + (unsigned)round, 'r');
			good &= gleaner_result(calls[i]) == NULL || round > 0;
			good &= gleaner_start(calls[i], size) == GLEANER_OK;
		}
		for (unsigned i = 0; i < 40; i++) {
			uint32_t size = i % 8 == 0 ? 100000 : 1000 + i, n;
			unsigned char *in = malloc(size);
			fill(in, size, i + (unsigned)round, 'r');
			good &= gleaner_wait(calls[i], -1, &n) == GLEANER_OK && n == size && right(in, gleaner_result(calls[i]), n);
			half += i == 39 && round == 2;
			free(in);
		}
	}
	ok(good && half == 1, "forty zero-copy calls, three times each");
	ok(gleaner_start(calls[0], 200000) == GLEANER_INVALID, "more arguments than the call was made for");
	for (int i = 0; i < 40; i++) gleaner_free(calls[i]);
}

static void asynchronous(void) {
	gleaner_call *calls[12];
	unsigned char in[12][100], out[12][100];
	uint32_t n, which;
	int good = 1, left = 12;

	for (unsigned i = 0; i < 12; i++) {
		fill(in[i], 100, i, 's');
		good &= gleaner_invoke(g, in[i], 100, out[i], 100, &calls[i]) == GLEANER_OK;
	}
	ok(good && gleaner_test(calls[11], &n) == GLEANER_PENDING, "a call that has just begun is pending");
	ok(gleaner_wait(calls[11], 1, NULL) == GLEANER_PENDING, "waiting ends after its time");
	for (; left > 0; left--) {
		good &= gleaner_wait_any(calls, 12, -1, &which) == GLEANER_OK && gleaner_test(calls[which], &n) == GLEANER_OK;
		good &= n == 100 && right(in[which], out[which], 100) && gleaner_runs(calls[which]) == 1;
		gleaner_free(calls[which]);
		calls[which] = NULL;
	}
	ok(good, "twelve calls, whichever ends first");
	ok(gleaner_wait_any(calls, 12, -1, &which) == GLEANER_INVALID, "nothing to wait for");
	memset(out[0], 'z', 100);
	fill(in[0], 100, 1, 's');
	gleaner_invoke(g, in[0], 100, out[0], 100, &calls[0]);
	gleaner_free(calls[0]);
	ok(gleaner_run(g, in[0], 100, out[1], 100, &n) == GLEANER_OK, "a call after one that was given up");
}

static void refusals(void) {
	char b[8];
	gleaner_call *c;
	pid_t child;
	int status;

	ok(gleaner_run(g, b, 1u << 31, b, 8, NULL) == GLEANER_TOO_BIG && gleaner_detail()[0] != 0, "arguments larger than the buffer");
	ok(gleaner_run(g, NULL, 4, b, 8, NULL) == GLEANER_INVALID, "no arguments where there should be some");
	ok(gleaner_invoke(NULL, b, 1, b, 1, &c) == GLEANER_INVALID && c == NULL, "no lease");
	child = fork();
	if (child == 0) _exit(gleaner_run(g, "rx", 2, b, 8, NULL) == GLEANER_FORKED && gleaner_executors(g) == GLEANER_FORKED ? 0 : 1);
	ok(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0, "a child process is refused");
	for (int i = -50; i < 5; i++) {
		if (gleaner_text(i) == NULL) ok(0, "every status has a text");
	}
}

static void failures(void) {
	char out[8];

	ok(gleaner_run(g, "cx", 2, out, 8, NULL) == GLEANER_CRASHED && strstr(gleaner_detail(), "signal 11") != NULL, "crash");
	ok(gleaner_run(g, "xx", 2, out, 8, NULL) == GLEANER_EXITED, "exit");
	ok(gleaner_run(g, "lx", 2, out, 8, NULL) == GLEANER_TOO_LARGE, "result too large");
	ok(gleaner_run(g, "ex", 2, out, 8, NULL) == GLEANER_DEADLINE, "deadline");
	ok(gleaner_run(g, "kx", 2, out, 8, NULL) == GLEANER_CRASHED, "killed again and again");
	ok(gleaner_run(g, "rabc", 4, out, 8, NULL) == GLEANER_OK && memcmp(out, "rcba", 4) == 0, "the lease lives on");
}

static int seconds = 3;

/* worker invokes with every call that there is, as one of many threads; its last is the number of wrong results. */
static void *worker(void *arg) {
	unsigned seed = (unsigned)(uintptr_t)arg;
	struct timespec t;
	gleaner_call *calls[WINDOW] = {0};
	static __thread unsigned char in[WINDOW][3000], out[WINDOW][3000];
	uint32_t size[WINDOW];
	uintptr_t wrong = 0;
	time_t end;

	clock_gettime(CLOCK_MONOTONIC, &t);
	end = t.tv_sec + seconds;
	for (unsigned round = 0; t.tv_sec < end; round++, clock_gettime(CLOCK_MONOTONIC, &t)) {
		uint32_t n, i = round % WINDOW, which;
		size[i] = 1 + (seed * 977 + round * 131) % 2999;
		fill(in[i], size[i], round, round % 16 == 0 ? 's' : 'r');
		if (round % 3 == 0) {
			wrong += gleaner_run(g, in[i], size[i], out[i], 3000, &n) != GLEANER_OK || n != size[i] || !right(in[i], out[i], n);
			continue;
		}
		wrong += gleaner_alloc(g, 3000, 3000, &calls[0]) != GLEANER_OK;
		memcpy(gleaner_args(calls[0]), in[i], size[i]);
		wrong += gleaner_start(calls[0], size[i]) != GLEANER_OK;
		for (unsigned k = 1; k < 4; k++) wrong += gleaner_invoke(g, in[i], size[i], out[k], 3000, &calls[k]) != GLEANER_OK;
		if (round % 7 == 0) { /* given up in the middle */
			gleaner_free(calls[3]);
			calls[3] = NULL;
		}
		for (unsigned left = calls[3] != NULL ? 4 : 3; left > 0; left--) {
			wrong += gleaner_wait_any(calls, 4, -1, &which) != GLEANER_OK;
			int rc = gleaner_wait(calls[which], -1, &n);
			const unsigned char *result = which == 0 ? gleaner_result(calls[0]) : out[which];
			wrong += rc != GLEANER_OK || n != size[i] || !right(in[i], result, n);
			if (rc != GLEANER_OK) fprintf(stderr, "# %s: %s\n", gleaner_text(rc), gleaner_detail());
			gleaner_free(calls[which]);
			calls[which] = NULL;
		}
	}
	return (void *)wrong;
}

/* storm: many threads at once, while executors come and go. */
static void storm(void) {
	pthread_t threads[4];
	uintptr_t wrong = 0;

	for (uintptr_t i = 0; i < 4; i++) pthread_create(&threads[i], NULL, worker, (void *)i);
	for (int i = 0; i < 4; i++) {
		void *result;
		pthread_join(threads[i], &result);
		wrong += (uintptr_t)result;
	}
	ok(wrong == 0, "every result is right");
}

/* ends: the lease ends while calls wait. */
static void ends(void) {
	gleaner_call *c;
	char out[8];
	int rc;

	ok(gleaner_invoke(g, "ex", 2, out, 8, &c) == GLEANER_OK, "an endless call begins");
	printf("# begun\n");
	fflush(stdout);
	rc = gleaner_wait(c, 10000, NULL);
	ok(rc == GLEANER_ENDED && gleaner_detail()[0] != 0, "it ends with the lease");
	if (rc != GLEANER_ENDED) printf("# %s\n", gleaner_text(rc));
	ok(gleaner_run(g, "ra", 2, out, 8, NULL) == GLEANER_ENDED, "nothing begins after the end");
	ok(gleaner_executors(g) == GLEANER_ENDED, "no executors either");
	gleaner_free(c);
}

/* leave ends the process in the middle of everything. */
static void leave(void) {
	static unsigned char in[64], out[64][64];
	gleaner_call *c;
	int good = 1;

	fill(in, sizeof in, 1, 's');
	for (int i = 0; i < 64; i++) good &= gleaner_invoke(g, in, sizeof in, out[i], sizeof out[i], &c) == GLEANER_OK;
	good &= gleaner_wait(c, 20, NULL) >= 0;
	ok(good, "sixty-four calls begin");
}

/* stopped: the executors are stopped; every function returns within its time all the same. */
static void stopped(void) {
	static char out[2][8];
	struct timespec from, to;
	gleaner_call *c[2];
	uint32_t which;

	ok(gleaner_await(g, 1, 20000) == GLEANER_OK && gleaner_run(g, "ra", 2, out[0], 8, NULL) == GLEANER_OK, "a call while all is well");
	printf("# stop\n");
	fflush(stdout);
	if (getchar() == EOF) ok(0, "told that everything is stopped");
	clock_gettime(CLOCK_MONOTONIC, &from);
	for (int i = 0; i < 2; i++) ok(gleaner_invoke(g, "ra", 2, out[i], 8, &c[i]) == GLEANER_OK, "invoke returns at once");
	ok(gleaner_wait(c[0], 100, NULL) == GLEANER_PENDING, "wait returns after its time");
	ok(gleaner_wait_any(c, 2, 100, &which) == GLEANER_PENDING, "wait_any returns after its time");
	ok(gleaner_test(c[1], NULL) == GLEANER_PENDING, "test returns at once");
	ok(gleaner_await(g, 5, 100) == GLEANER_PENDING, "await returns after its time");
	gleaner_free(c[0]);
	ok(gleaner_executors(g) >= 0, "executors are counted");
	gleaner_finish(g);
	clock_gettime(CLOCK_MONOTONIC, &to);
	ok(to.tv_sec - from.tv_sec < 20, "and the end of the lease waits for nobody");
	g = NULL;
}

static void broken(void) {
	char out[8];
	int rc = gleaner_run(g, "ra", 2, out, 8, NULL);

	ok(rc == GLEANER_UNKNOWN_SYMBOL && gleaner_detail()[0] != 0, "an unknown symbol is said by name");
	if (rc != GLEANER_UNKNOWN_SYMBOL) printf("# %s: %s\n", gleaner_text(rc), gleaner_detail());
}

int main(int argc, char **argv) {
	struct gleaner_options o = {.bytes = sizeof o, .carrier = getenv("CARRIER")};
	const char *part = argc > 1 ? argv[1] : "";
	int rc;

	if (argc > 2) seconds = atoi(argv[2]);
	rc = gleaner_init(&g, &o);
	if (strcmp(part, "budget") == 0) {
		ok(rc == GLEANER_INVALID && strstr(gleaner_detail(), "GLEANER_SPIN") != NULL, "a budget that is none");
		return tap_end();
	}
	if (strcmp(part, "refused") == 0) {
		ok(rc == GLEANER_UNREACHABLE || rc == GLEANER_NO_LEASE || rc == GLEANER_PROTOCOL, gleaner_text(rc));
		return tap_end();
	}
	ok(rc == GLEANER_OK && gleaner_lease(g) == 7 && gleaner_buffer_bytes(g) == 1 << 20, "init");
	if (rc != GLEANER_OK) {
		printf("# %s: %s\n", gleaner_text(rc), gleaner_detail());
		return tap_end();
	}
	if (strcmp(part, "basics") == 0) {
		ok(gleaner_await(g, 2, 10000) == GLEANER_OK && gleaner_executors(g) == 2 && gleaner_wanted(g) == 2, "two executors");
		sizes();
		asynchronous();
		zero_copy();
		refusals();
	} else if (strcmp(part, "failures") == 0) {
		failures();
	} else if (strcmp(part, "storm") == 0) {
		storm();
	} else if (strcmp(part, "ends") == 0) {
		ends();
	} else if (strcmp(part, "broken") == 0) {
		broken();
	} else if (strcmp(part, "stopped") == 0) {
		stopped();
	} else if (strcmp(part, "leave") == 0) {
		leave();
		return tap_end();
	}
	gleaner_finish(g);
	return tap_end();
}
