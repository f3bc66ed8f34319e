/* The few lines that a TAP test needs. */
#ifndef GLEANER_TAP_H
#define GLEANER_TAP_H

#include <stdio.h>

static int tap_count, tap_failed;

#define OK(cond, ...)                                                                    \
	do {                                                                             \
		int tap_good = !!(cond);                                                 \
		tap_failed += !tap_good;                                                 \
		printf("%sok %d - ", tap_good ? "" : "not ", ++tap_count);               \
		printf(__VA_ARGS__);                                                     \
		printf("\n");                                                            \
		if (!tap_good)                                                           \
			printf("# %s:%d: %s\n", __FILE__, __LINE__, #cond);              \
	} while (0)

#define SKIP(reason) printf("ok %d # SKIP %s\n", ++tap_count, reason)

static inline int tap_end(void)
{
	printf("1..%d\n", tap_count);
	return tap_failed != 0;
}

#endif
