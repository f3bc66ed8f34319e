/* Prices options with OpenMP threads here and leased executors elsewhere at the same time, and compares with a serial run.
 *
 *	gleaner run --function blackscholes.so --executors 4 -- ./blackscholes [OPTIONS [PERCENT [PASSES]]]
 *
 * PERCENT of the loop (50) goes to executors, in blocks; the threads do the rest meanwhile. PASSES (1) repeats the loop; Ctrl-C ends it
 * after a pass. */
#include <math.h>
#include <omp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <gleaner.h>

struct option { /* as contrib/functions/blackscholes.c has it */
	float spot, strike, rate, volatility, time;
	uint32_t put;
};

enum { BLOCK = 20000, THREADS_BLOCK = 1000 };

static double normal(double x) { return 0.5 * erfc(-x * M_SQRT1_2); }

static float price(const struct option *o) {
	double width = o->volatility * sqrt(o->time);
	double d1 = (log((double)o->spot / o->strike) + (o->rate + 0.5 * o->volatility * o->volatility) * o->time) / width;
	double d2 = d1 - width, later = o->strike * exp(-(double)o->rate * o->time);

	return o->put ? (float)(later * normal(-d2) - o->spot * normal(-d1)) : (float)(o->spot * normal(d1) - later * normal(d2));
}

static volatile sig_atomic_t enough;

static void interrupted(int number) {
	(void)number;
	enough = 1;
}

static void make(struct option *all, long n) {
	uint32_t x = 2463534242u;

	for (long i = 0; i < n; i++) {
		x ^= x << 13, x ^= x >> 17, x ^= x << 5;
		all[i] = (struct option){10 + x % 90, 10 + x / 97 % 90, 0.01f * (float)(x / 7 % 9), 0.05f + 0.01f * (float)(x / 31 % 60), 0.1f + 0.1f * (float)(x / 11 % 40), x & 1};
	}
}

static void stop(int rc) {
	fprintf(stderr, "%s: %s\n", gleaner_text(rc), gleaner_detail());
	exit(1);
}

/* both prices all options: the first part by executors, the rest by threads. Returns how many blocks ran more than once. */
static long both(gleaner *lease, const struct option *all, float *prices, long n, long remote) {
	long blocks = (remote + BLOCK - 1) / BLOCK, again = 0;
	gleaner_call **calls = calloc((size_t)blocks + 1, sizeof *calls);
	int rc;

	for (long b = 0; b < blocks; b++) {
		long from = b * BLOCK, count = remote - from < BLOCK ? remote - from : BLOCK;
		rc = gleaner_invoke(lease, all + from, (uint32_t)(count * (long)sizeof *all), prices + from, (uint32_t)(count * (long)sizeof *prices), &calls[b]);
		if (rc != GLEANER_OK) stop(rc);
	}
#pragma omp parallel for schedule(dynamic, THREADS_BLOCK)
	for (long i = remote; i < n; i++) prices[i] = price(&all[i]);
	for (long b = 0; b < blocks; b++) {
		rc = gleaner_wait(calls[b], -1, NULL);
		if (rc != GLEANER_OK) stop(rc);
		again += gleaner_runs(calls[b]) > 1;
		gleaner_free(calls[b]);
	}
	free(calls);
	return again;
}

static long differences(const float *a, const float *b, long n) {
	long count = 0;

	for (long i = 0; i < n; i++) count += memcmp(&a[i], &b[i], sizeof *a) != 0 && fabsf(a[i] - b[i]) > 1e-5f * (1 + fabsf(a[i]));
	return count;
}

int main(int argc, char **argv) {
	long n = argc > 1 ? atol(argv[1]) : 2000000, percent = argc > 2 ? atol(argv[2]) : 50, passes = argc > 3 ? atol(argv[3]) : 1;
	long remote = n / 100 * percent, done = 0, again = 0, wrong = 0;
	struct option *all = malloc((size_t)n * sizeof *all);
	float *serial = malloc((size_t)n * sizeof *serial), *prices = malloc((size_t)n * sizeof *prices);
	double begin, one, parallel;
	gleaner *lease;
	int rc = gleaner_init(&lease, NULL);

	if (rc != GLEANER_OK) stop(rc);
	if (n < 1 || percent < 0 || percent > 100 || all == NULL || serial == NULL || prices == NULL) return 2;
	make(all, n);
	begin = omp_get_wtime();
	for (long i = 0; i < n; i++) serial[i] = price(&all[i]);
	one = omp_get_wtime() - begin;
	rc = gleaner_await(lease, gleaner_wanted(lease), 10000);
	if (rc < 0) stop(rc);
	printf("lease %llu: %d executors, %d threads\n", (unsigned long long)gleaner_lease(lease), gleaner_executors(lease), omp_get_max_threads());
	fflush(stdout);
	signal(SIGINT, interrupted);
	begin = omp_get_wtime();
	for (; done < passes && !enough; done++) {
		memset(prices, 0xff, (size_t)n * sizeof *prices);
		again += both(lease, all, prices, n, remote);
		wrong += differences(serial, prices, n);
	}
	parallel = (omp_get_wtime() - begin) / (double)done;
	printf("%ld options: serial %.3f s, with executors for %ld %% of them %.3f s (%.2f times as fast)\n", n, one, percent, parallel, one / parallel);
	printf("%ld blocks ran again after an eviction; %ld prices differ\n", again, wrong);
	gleaner_finish(lease);
	return wrong != 0;
}
