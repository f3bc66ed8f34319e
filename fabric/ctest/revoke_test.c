/* revoke_test PROVIDER HOST: a former client keeps writing to and reading from memory that has been revoked. Exit status 77: no such
 * provider here. It knows address and key, speaks to libfabric as it likes, and connects again when it is thrown out. */
#define _GNU_SOURCE
#include "../ofi.c"

#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tap.h"

enum { BYTES = 256 * 1024, MARK = 0xa5, SECRET = 0x3c, ENOUGH = 8, PATIENCE_MS = 20000 };

/* What both processes see. */
struct board {
	_Atomic uint32_t told, stop, attempts, opened, leaked, written;
	uint8_t address[GF_ADDRESS_BYTES];
	uint64_t key, base;
};

static const char *provider, *host;

static int64_t now_ms(void) {
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static struct gf_ofi *open_here(char *why, size_t n) {
	struct gf_ofi_options o = {.provider = provider, .host = host, .depth = 16};
	struct gf_ofi *out;

	return gf_ofi_open(&out, &o, why, n) == 0 ? out : NULL;
}

/* settle gives an operation a tenth of a second; 1 when the endpoint is still of use. */
static int settle(struct gf_ofi *o, uint32_t before) {
	int64_t until = now_ms() + 100;

	while (o->free_count < before && now_ms() < until) {
		if (gf_ofi_advance(o) < 0) return 0;
	}
	return o->free_count >= before;
}

/* attack writes and reads until something fails. */
static void attack(struct board *b) {
	char why[256];
	struct gf_ofi *o = open_here(why, sizeof why);
	struct gf_ofi_memory mine;
	uint8_t *buffer = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	uint64_t peer;

	if (o == NULL || buffer == MAP_FAILED || gf_ofi_register(o, &mine, buffer, BYTES, why, sizeof why) != 0 || gf_ofi_peer(o, b->address, &peer) != 0) _exit(1);
	atomic_fetch_add(&b->opened, 1);
	for (int good = 1; good && !atomic_load(&b->stop);) {
		uint32_t before = o->free_count;
		memset(buffer, MARK, BYTES);
		int rc = gf_ofi_write(o, peer, &(struct gf_ofi_piece){.from = &mine, .bytes = BYTES, .to = b->base, .key = b->key});
		if (rc == 1) {
			good = gf_ofi_advance(o) == 0;
			continue;
		}
		good = rc == 0 && settle(o, before);
		if (good) atomic_fetch_add(&b->written, 1);
		memset(buffer, 0, BYTES);
		rc = good ? (int)fi_read(o->ep, buffer, BYTES, mine.descriptor, peer, b->base, b->key, &o->tx[o->free_tx[--o->free_count]]) : -1;
		good = rc == 0 && settle(o, before);
		for (int i = 0; i < BYTES; i++) {
			if (buffer[i] == SECRET) atomic_fetch_add(&b->leaked, 1);
		}
		atomic_fetch_add(&b->attempts, 1);
	}
	atomic_fetch_add(&b->attempts, 1);
	_exit(0); /* closing politely could take seconds */
}

/* besiege attacks by one process after the other. */
static void besiege(struct board *b) {
	char why[256];

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	gf_libfabric_load(why, sizeof why); /* once for all: it takes a while */
	while (!atomic_load(&b->told)) usleep(1000);
	while (!atomic_load(&b->stop)) {
		pid_t p = fork();
		if (p == 0) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			attack(b);
		}
		for (int64_t until = now_ms() + 5000; waitpid(p, NULL, WNOHANG) == 0; usleep(500)) {
			if (atomic_load(&b->stop) || now_ms() > until) kill(p, SIGKILL);
		}
	}
	_exit(0);
}

/* endure serves the endpoint, if there is one, until so many more attacks have been made. */
static int endure(struct gf_ofi *o, struct board *b, uint32_t more) {
	uint32_t goal = atomic_load(&b->attempts) + more;
	int64_t until = now_ms() + PATIENCE_MS;

	while (atomic_load(&b->attempts) < goal && now_ms() < until) {
		if (o != NULL) gf_ofi_advance(o);
	}
	return atomic_load(&b->attempts) >= goal;
}

static int holds(const uint8_t *memory, uint8_t value) {
	for (int i = 0; i < BYTES; i++) {
		if (memory[i] != value) return 0;
	}
	return 1;
}

int main(int argc, char **argv) {
	struct board *b = mmap(NULL, sizeof *b, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	uint8_t *memory = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct gf_ofi_memory region, next;
	struct gf_ofi *o;
	uint32_t bytes;
	char why[256];

	provider = argc > 1 ? argv[1] : "tcp;ofi_rxm";
	host = argc > 2 ? argv[2] : "127.0.0.1";
	if (b == MAP_FAILED || memory == MAP_FAILED) return 1;
	pid_t enemy = fork();
	if (enemy == 0) besiege(b);
	o = open_here(why, sizeof why);
	if (o == NULL) {
		printf("ok 1 # SKIP %s\n", why);
		kill(enemy, SIGKILL);
		return argc > 1 ? 77 : 0;
	}
	if (gf_ofi_register(o, &region, memory, BYTES, why, sizeof why) != 0 || gf_ofi_name(o, b->address, &bytes, why, sizeof why) != 0) return 1;
	b->key = region.key;
	b->base = region.base;
	atomic_store(&b->told, 1);
	for (int64_t until = now_ms() + PATIENCE_MS; memory[BYTES - 1] != MARK && now_ms() < until;) gf_ofi_advance(o);
	ok(memory[BYTES - 1] == MARK, "with the lease, the client writes");

	gf_ofi_unregister(&region);
	memset(memory, 0, BYTES);
	atomic_store(&b->leaked, 0);
	ok(endure(o, b, ENOUGH), "the former client goes on after its region is closed");
	ok(holds(memory, 0), "memory is clean, region closed and endpoint open");
	ok(gf_ofi_register(o, &next, memory, BYTES, why, sizeof why) == 0 && next.key != b->key, "the same memory, for another lease, has another key");
	memset(memory, SECRET, BYTES);
	endure(o, b, ENOUGH);
	ok(holds(memory, SECRET), "memory of the next lease is clean");
	gf_ofi_unregister(&next);

	int64_t began = now_ms();
	gf_ofi_close(o);
	int64_t took = now_ms() - began;
	printf("# closing the endpoint took %d ms, attacks %u by %u endpoints\n", (int)took, atomic_load(&b->attempts), atomic_load(&b->opened));
	memset(memory, 0, BYTES);
	endure(NULL, b, 4);
	ok(holds(memory, 0), "memory is clean, endpoint closed");
	ok(atomic_load(&b->leaked) == 0, "nothing was read");
	atomic_store(&b->stop, 1);
	waitpid(enemy, NULL, 0);
	return tap_end();
}
