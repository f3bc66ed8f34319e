/* The function of 'gleaner bench invoke': returns its input; the first byte when the input begins with s. */
#include <stdint.h>
#include <string.h>

uint32_t echo(const void *args, uint32_t size, void *result);

uint32_t echo(const void *args, uint32_t size, void *result) {
	if (size > 0 && *(const char *)args == 's') size = 1;
	memcpy(result, args, size);
	return size;
}
