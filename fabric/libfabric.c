#define _GNU_SOURCE
#include "libfabric.h"

#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

enum { FIRST_REALTIME = 32 };

static pthread_once_t once = PTHREAD_ONCE_INIT;
static struct gf_libfabric lib;
static int loaded;
static char reason[256];

static void *symbol(void *handle, const char *name, const char *version) {
	void *s = dlvsym(handle, name, version);
	if (s == NULL && reason[0] == 0) snprintf(reason, sizeof reason, "libfabric lacks %s@%s", name, version);
	return s;
}

/* A cached registration would stay open to peers after it is closed, hence the first setting. The others keep ofi_rxm from
 * allocating 70 MiB for each endpoint; the environment's own values win.
 * PSM's libraries, which Debian's libfabric needs, pin the process to a processor unless they are told not to, and take over
 * fault and termination signals, to write *.btr files into the working directory: the program's own handlers are put back at once. */
static void load(void) {
	struct sigaction before[FIRST_REALTIME];
	void *h;

	setenv("IPATH_NO_BACKTRACE", "1", 0);
	setenv("IPATH_NO_CPUAFFINITY", "1", 0);
	setenv("HFI_NO_CPUAFFINITY", "1", 0);
	setenv("FI_MR_CACHE_MAX_COUNT", "0", 1);
	setenv("FI_UNIVERSE_SIZE", "64", 0); /* as many peers as a worker takes; queues for 256 exceed what small devices have */
	setenv("FI_OFI_RXM_MSG_RX_SIZE", "64", 0);
	setenv("FI_OFI_RXM_MSG_TX_SIZE", "64", 0);
	for (int i = 1; i < FIRST_REALTIME; i++) sigaction(i, NULL, &before[i]);
	h = dlopen("libfabric.so.1", RTLD_NOW | RTLD_LOCAL);
	for (int i = 1; i < FIRST_REALTIME; i++) {
		if (i != SIGKILL && i != SIGSTOP) sigaction(i, &before[i], NULL);
	}
	if (h == NULL) {
		snprintf(reason, sizeof reason, "libfabric is not installed (%s): only the ring works, on the same node", dlerror());
		return;
	}
	*(void **)&lib.getinfo = symbol(h, "fi_getinfo", "FABRIC_1.3");
	*(void **)&lib.freeinfo = symbol(h, "fi_freeinfo", "FABRIC_1.3");
	*(void **)&lib.dupinfo = symbol(h, "fi_dupinfo", "FABRIC_1.3");
	*(void **)&lib.fabric = symbol(h, "fi_fabric", "FABRIC_1.1");
	*(void **)&lib.strerror = symbol(h, "fi_strerror", "FABRIC_1.0");
	loaded = reason[0] == 0;
}

const struct gf_libfabric *gf_libfabric_load(char *why, size_t why_bytes) {
	pthread_once(&once, load);
	if (loaded) return &lib;
	snprintf(why, why_bytes, "%s", reason);
	return NULL;
}
