#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

#include "worker.h"

static struct worker *faulting; /* for the signal handler */

/* copy_out is for systems where memory files may not be executed. */
static void *open_copy(int code) {
	char path[] = "/tmp/gleaner-code-XXXXXX";
	struct stat st;
	off_t from = 0;
	void *h = NULL;
	int f = mkostemp(path, O_CLOEXEC);

	if (f < 0) return NULL;
	if (fstat(code, &st) == 0) {
		while (from < st.st_size && sendfile(f, code, &from, (size_t)(st.st_size - from)) > 0) continue;
		if (from == st.st_size) h = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	}
	unlink(path);
	close(f);
	return h;
}

static void name_lease(const struct gf_command *in) {
	char text[GF_ADDRESS_BYTES + 1] = {0};

	snprintf(text, sizeof text, "%llu", (unsigned long long)in->cookie);
	setenv("GLEANER_LEASE_ID", text, 1);
	memset(text, 0, sizeof text);
	memcpy(text, in->address, in->address_bytes <= GF_ADDRESS_BYTES ? in->address_bytes : 0);
	setenv("GLEANER_INSTANCE_ID", text, 1);
	snprintf(text, sizeof text, "%u", in->connection);
	if (in->connection != 0) setenv("GLEANER_JOB_ID", text, 1);
	snprintf(text, sizeof text, "%u", in->slots);
	if (in->slots != 0) setenv("OMP_NUM_THREADS", text, 1);
}

static uint32_t load(struct worker *w, int code, const char *symbol, char *why, size_t why_bytes) {
	char path[64];
	void *h;

	snprintf(path, sizeof path, "/proc/self/fd/%d", code);
	h = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	if (h == NULL) {
		const char *text = dlerror();
		snprintf(why, why_bytes, "%s", text != NULL ? text : "no reason given");
		h = open_copy(code);
	}
	if (h == NULL) return GF_LOAD_FAILED;
	*(void **)&w->run = dlsym(h, symbol);
	if (w->run == NULL) {
		snprintf(why, why_bytes, "the library has no symbol %s", symbol);
		return GF_UNKNOWN_SYMBOL;
	}
	return GF_OK;
}

void worker_load(struct worker *w, const struct gf_command *in, int code) {
	struct gf_command told = {.op = GF_OP_LOADED};
	char symbol[256];

	if (w->run != NULL) return;
	snprintf(symbol, sizeof symbol, "%.*s", (int)sizeof symbol - 1, in->text);
	name_lease(in);
	if (worker_seal(w, (in->key & GF_LOAD_NETWORK) != 0) != 0) {
		told = (struct gf_command){.op = GF_OP_FAILED, .status = GF_LOAD_FAILED};
		snprintf(told.text, sizeof told.text, "the worker cannot be sealed: %s; a kernel with seccomp is needed", strerror(errno));
		worker_tell(w, &told);
		for (;;) pause();
	}
	told.status = load(w, code, symbol, told.text, sizeof told.text);
	if (told.status != GF_OK) {
		told.op = GF_OP_FAILED;
		worker_tell(w, &told);
		for (;;) pause(); /* the supervisor reads the reason, and then ends this process */
	}
	atomic_store(&w->state->loaded, 1);
	worker_tell(w, &told);
}

/* on_fault records what the supervisor cannot see and dies of the same signal: the faulting instruction runs again. */
static void on_fault(int number, siginfo_t *info, void *context) {
	(void)context;
	atomic_store(&faulting->state->fault_signal, (uint32_t)number);
	for (int i = 0; number == SIGSEGV && i < GF_MAX_CONNECTIONS; i++) {
		struct connection *c = &faulting->connections[i];
		if (c->used && gf_view_behind_result(&c->view, info->si_addr)) atomic_store(&faulting->state->fault_guard, GF_FAULT_RESULT);
	}
	signal(number, SIG_DFL);
	if (info->si_code <= 0) raise(number); /* sent, not caused by an instruction */
}

void worker_catch_faults(struct worker *w) {
	static uint8_t stack[64 * 1024];
	stack_t alternate = {.ss_sp = stack, .ss_size = sizeof stack};
	struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_ONSTACK};
	int numbers[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL};

	faulting = w;
	sigaltstack(&alternate, NULL);
	for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) sigaction(numbers[i], &action, NULL);
}
