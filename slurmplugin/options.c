#define _GNU_SOURCE
#include "options.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
	MAX_EXECUTORS = 4096, /* as gleaner sbatch has it */
	MAX_DIGITS = 12,      /* of a size */
};

const struct gl_option_text gl_option_texts[GL_OPTIONS] = {
	[GL_OPTION_SHARE] = {"gleaner", "GLEANER_SHARE", "yes|no", "may Gleaner lend memory that the job leaves unused (default: the site's)"},
	[GL_OPTION_EXECUTORS] = {"gleaner-executors", "GLEANER_EXECUTORS", "N", "executors of the job's gleaner map and invoke, on leftovers of other nodes"},
	[GL_OPTION_MEMORY] = {"gleaner-mem", "GLEANER_MEM_PER_EXECUTOR", "size[K|M|G|T]", "memory of each of these executors (default unit: M)"},
};

static bool is_yes_or_no(const char *value)
{
	return strcmp(value, "yes") == 0 || strcmp(value, "no") == 0;
}

static bool is_count(const char *value)
{
	size_t digits = strspn(value, "0123456789");
	if (digits == 0 || digits > 4 || value[digits] != '\0')
		return false;
	long n = strtol(value, NULL, 10);
	return n >= 1 && n <= MAX_EXECUTORS;
}

static bool is_size(const char *value)
{
	size_t digits = strspn(value, "0123456789");
	if (digits == 0 || digits > MAX_DIGITS || strspn(value, "0") == digits)
		return false;
	const char *unit = value + digits;
	if (*unit != '\0' && strchr("KMGTkmgt", *unit) != NULL)
		unit++;
	if (unit > value + digits && (*unit == 'B' || *unit == 'b'))
		unit++;
	return *unit == '\0';
}

bool gl_option_check(enum gl_option option, const char *value, char *why, size_t why_size)
{
	static bool (*const check[GL_OPTIONS])(const char *) = {is_yes_or_no, is_count, is_size};
	static const char *const want[GL_OPTIONS] = {
		"want yes or no", "want a number from 1 to 4096", "want a size such as 512M or 4G (a bare number is MiB)",
	};
	if (value != NULL && check[option](value))
		return true;
	snprintf(why, why_size, "--%s=%.64s: %s", gl_option_texts[option].name, value ? value : "", want[option]);
	return false;
}
