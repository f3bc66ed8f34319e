/* Returns the names and values of Gleaner's that a function finds in its environment. */
#include <stdint.h>
#include <string.h>

extern char **environ;

uint32_t run(void *args, uint32_t size, void *result) {
	uint32_t n = 0;

	(void)args, (void)size;
	for (char **e = environ; *e != NULL; e++) {
		size_t name = strcspn(*e, "=");
		if (strncmp(*e, "GLEANER_", 8) != 0 || name < 3 || strncmp(*e + name - 3, "_ID", 3) != 0) continue;
		memcpy((char *)result + n, *e, strlen(*e));
		n += (uint32_t)strlen(*e);
		((char *)result)[n++] = '\n';
	}
	return n;
}
