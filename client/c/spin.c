/* How long callers and executors poll before they sleep. */
#include <stdlib.h>
#include <string.h>

#include "inside.h"

enum { SPIN_NS = 50000 };
static const double longest_ns = 10e9;

/* read_budget reads always, never, or a time such as 50us; -1 when it is none of them. */
static int64_t read_budget(const char *text) {
	static const struct {
		const char *name;
		double ns;
	} units[] = {{"ns", 1}, {"us", 1e3}, {"\xc2\xb5s", 1e3}, {"ms", 1e6}, {"s", 1e9}};
	char *end;
	double n;

	if (strcmp(text, "always") == 0) return GLEANER_SPIN_ALWAYS;
	if (strcmp(text, "never") == 0 || strcmp(text, "0") == 0) return 0;
	if (text[0] < '0' || text[0] > '9') return -1;
	n = strtod(text, &end);
	for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
		if (strcmp(end, units[i].name) == 0 && n * units[i].ns <= longest_ns) return (int64_t)(n * units[i].ns);
	}
	return -1;
}

int spin_budget(int64_t asked, int64_t *budget) {
	const char *text = getenv("GLEANER_SPIN");

	*budget = asked < 0 ? 0 : asked;
	if (asked != 0) return GLEANER_OK;
	*budget = SPIN_NS;
	if (text == NULL || text[0] == 0) return GLEANER_OK;
	*budget = read_budget(text);
	return *budget >= 0 ? GLEANER_OK : text_fail(GLEANER_INVALID, "GLEANER_SPIN is \"%.40s\": want always, never, or a time of at most 10s such as 50us", text);
}

int64_t spin_on_the_wire(int64_t budget) { return budget == GLEANER_SPIN_ALWAYS ? -1 : budget; }
