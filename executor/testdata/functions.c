/* One function with a command in its first byte, so that a single library serves every test. */
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

uint32_t run(void *args, uint32_t size, void *result) {
	const char *in = args;
	volatile char *out = result;

	if (size == 0) return 0;
	switch (in[0]) {
	case 'e': /* echo */
		memcpy(result, args, size);
		return size;
	case 'v': /* inverts its input, which is made of whole words */
		for (uint32_t i = 0; i < size / 8; i++) ((uint64_t *)result)[i] = ~((uint64_t *)args)[i];
		return size;
	case 's': /* a bad pointer */
		*(volatile int *)16 = 1;
		return 0;
	case 'a':
		abort();
	case 'x':
		exit(3);
	case 'l': /* for ever */
		for (;;) continue;
	case 'o': /* writes behind the result buffer */
		for (uint64_t i = 0;; i++) out[i] = 1;
	case 'b': /* claims more than there is room for */
		return UINT32_MAX;
	case 'w': { /* wait 20 ms, then say so */
		struct timespec t = {.tv_nsec = 20 * 1000 * 1000};
		nanosleep(&t, NULL);
		out[0] = 'w';
		return 1;
	}
	case 'p': { /* process id */
		return (uint32_t)sprintf(result, "%d", getpid());
	}
	case 'f': { /* fills every page of its own that is named like the rest of the input */
		char line[512], rights[8];
		unsigned long from, to;
		FILE *f = fopen("/proc/self/maps", "r");
		while (f != NULL && fgets(line, sizeof line, f) != NULL) {
			if (strstr(line, in + 1) != NULL && sscanf(line, "%lx-%lx %7s", &from, &to, rights) == 3 && rights[1] == 'w') memset((void *)from, 0xff, to - from);
		}
		if (f != NULL) fclose(f);
		return 0;
	}
	case 't': { /* cuts all its open files short, and says how many it could */
		int count = 0;
		for (int i = 3; i < 64; i++) count += ftruncate(i, 0) == 0;
		return (uint32_t)sprintf(result, "%d", count);
	}
	case 'm': { /* resident memory in KiB, from /proc */
		FILE *f = fopen("/proc/self/statm", "r");
		long total = 0, resident = 0;
		if (f == NULL || fscanf(f, "%ld %ld", &total, &resident) != 2) return 0;
		fclose(f);
		return (uint32_t)sprintf(result, "%ld", resident * 4);
	}
	}
	return 0;
}
