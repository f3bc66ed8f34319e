/* The function of libgleaner's tests: its first byte says what it does, the rest comes back reversed behind it. */
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

uint32_t work(void *args, uint32_t size, void *result)
{
	const char *in = args;
	char *out = result;

	if (size == 0)
		return 0;
	switch (in[0]) {
	case 'c': /* crash */
		*(volatile int *)8 = 1;
		break;
	case 'k': /* be killed, as for its memory */
		raise(SIGKILL);
		break;
	case 'x':
		exit(0);
	case 'l': /* larger than anybody has room for */
		return 1u << 30;
	case 'e': /* endless */
		for (volatile uint64_t n = 0;; n++)
			;
	case 's': { /* slow */
		struct timespec pause = {.tv_nsec = 5 * 1000 * 1000};
		nanosleep(&pause, NULL);
		break;
	}
	}
	out[0] = in[0];
	for (uint32_t i = 1; i < size; i++)
		out[i] = in[size - i];
	return size;
}
