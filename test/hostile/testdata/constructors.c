/* A library that does harm as it is loaded: HARM says which. */
#define _GNU_SOURCE
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

__attribute__((constructor)) static void harm(void) { HARM; }

uint32_t run(void *args, uint32_t size, void *result) {
	(void)args;
	(void)result;
	return size;
}
