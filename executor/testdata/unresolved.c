/* Calls what no library has, so that none of it loads. */
#include <stdint.h>

uint32_t nobody_has_this(void);

uint32_t run(void *args, uint32_t size, void *result) {
	(void)args, (void)size, (void)result;
	return nobody_has_this();
}
