/* Which values of the options make sense. */
#define _GNU_SOURCE
#include "../options.h"
#include "tap.h"

#include <string.h>

static void check(enum gl_option option, const char *value, bool want)
{
	char why[256] = "";
	bool got = gl_option_check(option, value, why, sizeof why);
	OK(got == want, "--%s=%s is %s", gl_option_texts[option].name, value ? value : "(null)", want ? "good" : "bad");
	OK(want == (why[0] == '\0'), "  %s", why[0] ? why : "no message");
}

int main(void)
{
	static const char *const good[GL_OPTIONS][6] = {
		{"yes", "no"}, {"1", "8", "4096", "0008"}, {"512", "512M", "4G", "1t", "64kB", "999999999999K"},
	};
	static const char *const bad[GL_OPTIONS][9] = {
		{"", "Yes", "y", "yes no", "maybe"}, {"", "0", "-1", "4097", "99999999999999999999", "3 ", "x"},
		{"", "0", "000G", "M", "5B", "5MM", "-5M", "9999999999999M", "1.5G;reboot"},
	};
	for (int option = 0; option < GL_OPTIONS; option++) {
		for (int i = 0; i < 6 && good[option][i] != NULL; i++)
			check((enum gl_option)option, good[option][i], true);
		for (int i = 0; i < 9 && bad[option][i] != NULL; i++)
			check((enum gl_option)option, bad[option][i], false);
		check((enum gl_option)option, NULL, false);
	}
	return tap_end();
}
