/* Functions of the end-to-end suite. Each checks for itself what it can, so that a wrong result is not an accident. */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

uint32_t reverse(void *args, uint32_t size, void *result)
{
	const char *in = args;
	char *out = result;
	for (uint32_t i = 0; i < size; i++)
		out[i] = in[size - 1 - i];
	return size;
}

/* Works for 150 ms of wall time, then reverses. */
uint32_t slow(void *args, uint32_t size, void *result)
{
	struct timespec pause = {.tv_nsec = 150 * 1000 * 1000};
	while (nanosleep(&pause, &pause) != 0)
		;
	return reverse(args, size, result);
}

/* Keeps its core busy until killed. */
uint32_t forever(void *args, uint32_t size, void *result)
{
	(void)args, (void)size, (void)result;
	for (volatile uint64_t n = 0;; n++)
		;
}

uint32_t crash(void *args, uint32_t size, void *result)
{
	(void)args, (void)size, (void)result;
	*(volatile int *)8 = 1;
	return 0;
}

/* Crashes for inputs that begin with 'x', reverses others. */
uint32_t picky(void *args, uint32_t size, void *result)
{
	if (size > 0 && *(char *)args == 'x')
		abort();
	return reverse(args, size, result);
}

uint32_t leave(void *args, uint32_t size, void *result)
{
	(void)args, (void)size, (void)result;
	exit(0);
}

/* Writes far more than any result buffer holds. */
uint32_t flood(void *args, uint32_t size, void *result)
{
	(void)args, (void)size;
	memset(result, 'f', (size_t)1 << 30);
	return 1u << 30;
}

/* Says who runs it and what the sandbox lets it see: uid, gid, whether it can write to /usr, and how many processes there are. */
uint32_t whoami(void *args, uint32_t size, void *result)
{
	(void)args, (void)size;
	uint32_t out[3] = {(uint32_t)getuid(), (uint32_t)getgid(), access("/usr", W_OK) == 0};
	memcpy(result, out, sizeof out);
	return sizeof out;
}

/* Holds its executor until that is taken away. */
uint32_t idle(void *args, uint32_t size, void *result)
{
	(void)args, (void)size, (void)result;
	for (;;)
		pause();
}

/* Reads the file that the input names, or writes to it when the name begins with +, and tells what came of it: its text, "written", or
 * the error. For "socket" it opens one. */
uint32_t files(void *args, uint32_t size, void *result)
{
	char name[256] = {0}, *out = result;
	memcpy(name, args, size < sizeof name ? size : sizeof name - 1);
	name[strcspn(name, "\n")] = '\0';
	if (strcmp(name, "socket") == 0) {
		int fd = socket(AF_INET, SOCK_STREAM, 0);
		return (uint32_t)sprintf(out, "%s", fd >= 0 ? "opened" : strerror(errno));
	}
	int writes = name[0] == '+', fd = open(name + writes, writes ? O_WRONLY | O_CREAT : O_RDONLY, 0600);
	if (fd < 0)
		return (uint32_t)sprintf(out, "%s", strerror(errno));
	ssize_t n = writes ? write(fd, "new", 3) : read(fd, out, 4096);
	close(fd);
	return writes ? (uint32_t)sprintf(out, n == 3 ? "written" : "not written") : n > 0 ? (uint32_t)n : 0;
}
