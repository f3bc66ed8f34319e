/* ok and not ok lines; a test ends with `return tap_end();`. */
#ifndef GLEANER_TAP_H
#define GLEANER_TAP_H

#include <stdio.h>

static int tap_count, tap_failed;

static inline void ok(int good, const char *what) {
	printf("%sok %d - %s\n", good ? "" : "not ", ++tap_count, what);
	tap_failed += !good;
}

static inline int tap_end(void) {
	printf("1..%d\n", tap_count);
	return tap_failed != 0;
}

#endif
