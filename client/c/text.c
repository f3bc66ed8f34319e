#define _GNU_SOURCE
#include <stdarg.h>
#include <stdio.h>

#include "inside.h"

static __thread char last[SHARE_TEXT];

/* text_fail notes the detail of an error for gleaner_detail and returns the error. */
int text_fail(int status, const char *format, ...) {
	va_list args;

	va_start(args, format);
	vsnprintf(last, sizeof last, format, args);
	va_end(args);
	return status;
}

const char *gleaner_detail(void) { return last; }

const char *gleaner_text(int status) {
	static const struct {
		int status;
		const char *text;
	} all[] = {
		{GLEANER_OK, "all right"},
		{GLEANER_PENDING, "not yet"},
		{GLEANER_CRASHED, "function crashed"},
		{GLEANER_DEADLINE, "function exceeded its deadline"},
		{GLEANER_TOO_LARGE, "result too large"},
		{GLEANER_UNKNOWN_SYMBOL, "unknown symbol"},
		{GLEANER_LOAD_FAILED, "library does not load"},
		{GLEANER_EXITED, "function called exit"},
		{GLEANER_BAD_REQUEST, "bad request"},
		{GLEANER_LOST, "executor lost too often"},
		{GLEANER_ENDED, "lease has ended"},
		{GLEANER_NO_LEASE, "no lease: start the program with gleaner run --function LIBRARY:SYMBOL"},
		{GLEANER_UNREACHABLE, "gleaner run does not answer"},
		{GLEANER_PROTOCOL, "gleaner run speaks another protocol"},
		{GLEANER_INVALID, "invalid argument"},
		{GLEANER_TOO_BIG, "larger than the lease's buffer: gleaner run --buffer makes it larger"},
		{GLEANER_NO_MEMORY, "out of memory"},
		{GLEANER_FORKED, "the lease belongs to the parent process: call gleaner_init in the child"},
	};

	for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
		if (all[i].status == status) return all[i].text;
	}
	return "unknown status";
}
