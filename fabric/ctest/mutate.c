/* mutate [CORPUS [SECONDS]]: calls a fuzz target with mutations of the files in a folder, where there is no libFuzzer. The same
 * inputs every time; without SECONDS so many that it takes a few. An input that fails is left in build/mutate-failed. */
#include <dirent.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

enum { MOST_SEEDS = 256, MOST_BYTES = 8192, ROUNDS = 400000 };

static struct seed {
	uint8_t bytes[MOST_BYTES];
	size_t n;
} seeds[MOST_SEEDS], input;
static size_t count;
static uint64_t state = 88172645463325252u;

static size_t below(size_t n) {
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return n == 0 ? 0 : (size_t)(state % n);
}

static int read_seeds(const char *folder) {
	DIR *d = opendir(folder);
	struct dirent *e;
	char path[1024];

	if (d == NULL) return -1;
	while ((e = readdir(d)) != NULL && count < MOST_SEEDS) {
		snprintf(path, sizeof path, "%s/%s", folder, e->d_name);
		FILE *f = e->d_name[0] != '.' ? fopen(path, "rb") : NULL;
		if (f == NULL) continue;
		seeds[count].n = fread(seeds[count].bytes, 1, MOST_BYTES, f);
		fclose(f);
		count++;
	}
	closedir(d);
	return count > 0 ? 0 : -1;
}

static int by_content(const void *a, const void *b) { return memcmp(a, b, sizeof(struct seed)); }

/* splice puts a piece of another seed in place of one of the input's. */
static void splice(void) {
	const struct seed *other = &seeds[below(count)];
	size_t from = below(other->n + 1), piece = below(other->n - from + 1), at = below(input.n + 1), gone = below(input.n - at + 1);

	if (input.n - gone + piece > MOST_BYTES) return;
	memmove(input.bytes + at + piece, input.bytes + at + gone, input.n - at - gone);
	memcpy(input.bytes + at, other->bytes + from, piece);
	input.n = input.n - gone + piece;
}

static void mutate(void) {
	static const uint8_t telling[] = {0, 1, 2, 7, 8, 0x10, 0x7f, 0x80, 0xfe, 0xff};

	switch (below(7)) {
	case 0:
	case 1:
		if (input.n > 0) input.bytes[below(input.n)] = (uint8_t)below(256);
		break;
	case 2:
		if (input.n > 0) input.bytes[below(input.n)] = telling[below(sizeof telling)];
		break;
	case 3:
		if (input.n > 0) input.bytes[below(input.n)] ^= (uint8_t)(1u << below(8));
		break;
	case 4:
		splice();
		break;
	case 5: /* a head that fits */
		if (input.n < 8 || input.n > UINT16_MAX) break;
		input.bytes[0] = (uint8_t)(input.n - 8);
		input.bytes[1] = (uint8_t)((input.n - 8) >> 8);
		break;
	default:
		input.n = below(input.n + 1);
	}
}

static void keep(int number) {
	FILE *f = fopen("build/mutate-failed", "wb");

	if (f != NULL) fwrite(input.bytes, 1, input.n, f);
	if (f != NULL) fclose(f);
	signal(number, SIG_DFL);
	raise(number);
}

int main(int argc, char **argv) {
	const char *corpus = argc > 1 ? argv[1] : "fabric/ctest/corpus";
	time_t until = argc > 2 ? time(NULL) + atoi(argv[2]) : 0;
	uint64_t rounds = 0;

	if (read_seeds(corpus) != 0) {
		printf("not ok 1 - no seeds in %s: run this in the repository's root, or name the folder\n1..1\n", corpus);
		return 1;
	}
	qsort(seeds, count, sizeof *seeds, by_content); /* folders have no order */
	signal(SIGABRT, keep);
	for (; until != 0 ? time(NULL) < until : rounds < ROUNDS; rounds++) {
		input = seeds[below(count)];
		for (size_t i = rounds < count ? 0 : 1 + below(4); i > 0; i--) mutate();
		if (rounds < count) input = seeds[rounds];
		LLVMFuzzerTestOneInput(input.bytes, input.n);
	}
	printf("ok 1 - %llu mutations of %zu seeds\n1..1\n", (unsigned long long)rounds, count);
	return 0;
}
