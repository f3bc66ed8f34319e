/* Functions that attack what they run in. The ones that return say what they achieved. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/shm.h>
#include <unistd.h>

#define FUNCTION(name) uint32_t name(void *args, uint32_t size, void *result)

/* Every signal to the sandbox's first process, and to everything else. */
FUNCTION(signals)
{
	for (int s = 1; s < 65; s++)
		kill(1, s);
	kill(-1, SIGKILL);
	usleep(100 * 1000);
	return (uint32_t)sprintf(result, "parent %d", getppid());
}

FUNCTION(memory_of_supervisor)
{
	int f = open("/proc/1/mem", O_RDWR);
	return (uint32_t)sprintf(result, "%s", f < 0 ? "refused" : "open");
}

/* Fills what outlives the worker, so that the sandbox has no memory left. */
FUNCTION(residue)
{
	char path[64];
	for (int i = 0; i < 1000000; i++) {
		sprintf(path, "/tmp/%d", i);
		int f = open(path, O_CREAT | O_RDWR, 0600);
		if (f < 0)
			break;
		close(f);
	}
	for (int i = 0; i < 100000; i++) {
		int id = shmget(IPC_PRIVATE, 1 << 20, IPC_CREAT | 0600);
		void *p = id < 0 ? (void *)-1 : shmat(id, NULL, 0);
		if (p == (void *)-1)
			break;
		memset(p, 1, 1 << 20);
		shmdt(p);
	}
	return (uint32_t)sprintf(result, "done");
}

FUNCTION(scribble)
{
	FILE *maps = fopen("/proc/self/maps", "r");
	char line[512], rights[8];
	unsigned long from, to;
	while (maps != NULL && fgets(line, sizeof line, maps) != NULL)
		if (strstr(line, "gleaner-state") != NULL && sscanf(line, "%lx-%lx %7s", &from, &to, rights) == 3)
			memset((void *)from, 0xff, to - from);
	return 0;
}

FUNCTION(forks)
{
	for (;;)
		if (fork() == 0)
			setsid();
}

FUNCTION(eater)
{
	for (;;) {
		char *p = malloc(1 << 20);
		if (p != NULL)
			memset(p, 1, 1 << 20);
	}
}
