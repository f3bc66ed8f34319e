/* Bare libfabric between two processes: messages up to the largest that goes eagerly, RMA writes with remote data above it, and
 * from BULK on writes with a message behind them: on TCP each is the fastest for its sizes. */
#define _GNU_SOURCE
#include "wire.h"

#include <dlfcn.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <rdma/fi_cm.h>
#include <rdma/fi_domain.h>
#include <rdma/fi_endpoint.h>
#include <rdma/fi_errno.h>
#include <rdma/fi_rma.h>

#include "libfabric.h"

enum { LARGEST = 1 << 20, EAGER = 16 * 1024, BULK = 64 * 1024 + 1, RECEIVES = 16, DEPTH = 64, WINDOW = 16, BUFFERS = 2,
	STRIDE = LARGEST + 2 * 4096 /* not in the same sets of a cache */ };

struct peer_info {
	uint8_t name[256];
	size_t name_bytes;
	uint64_t key, base;
};

struct side {
	const struct gf_libfabric *lib;
	struct fi_info *info;
	struct fid_fabric *fabric;
	struct fid_domain *domain;
	struct fid_cq *cq;
	struct fid_av *av;
	struct fid_ep *ep;
	struct fid_mr *mr;
	void *desc;
	uint8_t *memory; /* written by the peer; sent from here; receives */
	fi_addr_t peer;
	struct peer_info remote;
	struct fi_context2 receive[RECEIVES], send[WINDOW];
	uint32_t sent, got, in_flight, next;
	uint8_t *newest;
	int wait_fd, channel;
};

static void check(struct side *s, const char *what, long rc) {
	if (rc != 0) die(what, s->lib->strerror((int)(rc < 0 ? -rc : rc)));
}

static uint8_t *out(struct side *s) { return s->memory + BUFFERS * STRIDE; }
/* arrived is where the newest payload lies: as in an invocation it is copied out on one side and echoed on the other. */
static uint8_t *arrived(struct side *s, uint32_t size) { return size > EAGER ? s->memory : s->newest; }
static uint8_t *receive_at(struct side *s, int i) { return s->memory + 2 * BUFFERS * STRIDE + (size_t)i * EAGER; }

static void open_side(struct side *s, const char *provider, const char *host) {
	struct fi_cq_attr cq = {.format = FI_CQ_FORMAT_DATA, .wait_obj = FI_WAIT_FD, .size = 1024};
	struct fi_av_attr av = {.type = FI_AV_TABLE, .count = 2};
	size_t bytes = 2 * BUFFERS * STRIDE + RECEIVES * EAGER;
	char why[256];

	s->lib = gf_libfabric_load(why, sizeof why);
	if (s->lib == NULL) die("libfabric", why);
	struct fi_info *h = s->lib->dupinfo(NULL);
	h->caps = FI_MSG | FI_RMA;
	h->mode = FI_CONTEXT | FI_CONTEXT2;
	h->ep_attr->type = FI_EP_RDM;
	h->domain_attr->mr_mode = FI_MR_LOCAL | FI_MR_VIRT_ADDR | FI_MR_ALLOCATED | FI_MR_PROV_KEY | FI_MR_ENDPOINT;
	h->domain_attr->threading = FI_THREAD_DOMAIN;
	h->tx_attr->size = h->rx_attr->size = DEPTH;
	h->tx_attr->msg_order = h->rx_attr->msg_order = FI_ORDER_SAS | FI_ORDER_SAW;
	h->fabric_attr->prov_name = strdup(provider);
	check(s, "fi_getinfo", s->lib->getinfo(FI_VERSION(1, 9), host, NULL, FI_SOURCE, h, &s->info));
	s->lib->freeinfo(h);
	check(s, "fi_fabric", s->lib->fabric(s->info->fabric_attr, &s->fabric, NULL));
	check(s, "fi_domain", fi_domain(s->fabric, s->info, &s->domain, NULL));
	check(s, "fi_cq_open", fi_cq_open(s->domain, &cq, &s->cq, NULL));
	check(s, "fi_av_open", fi_av_open(s->domain, &av, &s->av, NULL));
	check(s, "fi_endpoint", fi_endpoint(s->domain, s->info, &s->ep, NULL));
	check(s, "fi_ep_bind", fi_ep_bind(s->ep, &s->cq->fid, FI_TRANSMIT | FI_RECV));
	check(s, "fi_ep_bind", fi_ep_bind(s->ep, &s->av->fid, 0));
	check(s, "fi_enable", fi_enable(s->ep));
	check(s, "wait descriptor", fi_control(&s->cq->fid, FI_GETWAIT, &s->wait_fd));
	if (posix_memalign((void **)&s->memory, 4096, bytes) != 0) die("memory", "none");
	memset(s->memory, 7, bytes);
	check(s, "fi_mr_reg", fi_mr_reg(s->domain, s->memory, bytes, FI_SEND | FI_RECV | FI_WRITE | FI_REMOTE_WRITE, 0, 77, 0, &s->mr, NULL));
	if ((s->info->domain_attr->mr_mode & FI_MR_ENDPOINT) != 0) {
		check(s, "fi_mr_bind", fi_mr_bind(s->mr, &s->ep->fid, 0));
		check(s, "fi_mr_enable", fi_mr_enable(s->mr));
	}
	s->desc = fi_mr_desc(s->mr);
	for (int i = 0; i < RECEIVES; i++) check(s, "fi_recv", fi_recv(s->ep, receive_at(s, i), EAGER, s->desc, FI_ADDR_UNSPEC, &s->receive[i]));
}

static void meet(struct side *s) {
	struct peer_info own = {.key = fi_mr_key(s->mr), .name_bytes = sizeof own.name};

	own.base = (s->info->domain_attr->mr_mode & FI_MR_VIRT_ADDR) != 0 ? (uint64_t)(uintptr_t)s->memory : 0;
	check(s, "fi_getname", fi_getname(&s->ep->fid, own.name, &own.name_bytes));
	if (write(s->channel, &own, sizeof own) != sizeof own || read(s->channel, &s->remote, sizeof s->remote) != sizeof s->remote) die("channel", "broken");
	if (fi_av_insert(s->av, s->remote.name, 1, &s->peer, 0, NULL) != 1) die("fi_av_insert", "refused");
}

/* poll_cq takes what has come and posts receives anew. */
static int poll_cq(struct side *s) {
	struct fi_cq_data_entry e[8];
	ssize_t n = fi_cq_read(s->cq, e, 8);

	if (n == -FI_EAGAIN) return 0;
	if (n < 0) die("completion queue", "an operation failed");
	for (ssize_t i = 0; i < n; i++) {
		struct fi_context2 *c = e[i].op_context;
		if ((e[i].flags & FI_REMOTE_CQ_DATA) != 0) {
			s->got++;
		} else if (c >= s->receive && c < s->receive + RECEIVES) {
			int k = (int)(c - s->receive);
			s->got++;
			s->newest = receive_at(s, k);
			check(s, "fi_recv", fi_recv(s->ep, receive_at(s, k), EAGER, s->desc, FI_ADDR_UNSPEC, c));
		} else if (c != NULL) {
			s->in_flight--;
		}
	}
	return 1;
}

static void step(struct side *s, uint32_t mode) {
	struct fid *all[1] = {&s->cq->fid};

	if (poll_cq(s) || mode != MODE_BLOCK) return;
	if (fi_trywait(s->fabric, all, 1) != FI_SUCCESS) return;
	struct pollfd p = {.fd = s->wait_fd, .events = POLLIN};
	poll(&p, 1, -1);
}

static void push(struct side *s, uint32_t size, uint32_t mode) {
	ssize_t rc;

	do {
		void *context = &s->send[s->next % WINDOW];
		int completes = 1;
		if (mode == MODE_STREAM) { /* from two buffers into two, which the caches hold */
			size_t at = s->next % BUFFERS * STRIDE;
			rc = fi_write(s->ep, out(s) + at, size, s->desc, s->peer, s->remote.base + at, s->remote.key, context);
		} else if (size >= BULK) {
			rc = fi_write(s->ep, out(s), size, s->desc, s->peer, s->remote.base, s->remote.key, context);
		} else if (size > EAGER) {
			rc = fi_writedata(s->ep, out(s), size, s->desc, 1, s->peer, s->remote.base, s->remote.key, context);
		} else if (size <= s->info->tx_attr->inject_size) {
			rc = fi_inject(s->ep, out(s), size, s->peer);
			completes = 0;
		} else {
			rc = fi_send(s->ep, out(s), size, s->desc, s->peer, context);
		}
		if (rc == 0 && completes) s->in_flight++, s->next++;
		if (rc == -FI_EAGAIN) poll_cq(s);
	} while (rc == -FI_EAGAIN);
	check(s, "send", rc);
	if (size >= BULK && mode != MODE_STREAM) push(s, 1, mode);
}

static void await(struct side *s, uint32_t want, uint32_t mode) {
	while (s->got < want) step(s, mode);
}

static void drain(struct side *s) {
	while (s->in_flight > 0) poll_cq(s);
}

static void respond(struct side *s, const struct job *j) {
	s->got = 0;
	if (write(s->channel, "r", 1) != 1) die("channel", "broken");
	if (j->mode == MODE_STREAM) {
		await(s, 1, MODE_SPIN);
		push(s, 1, MODE_SPIN);
	} else {
		for (uint32_t i = 1; i <= j->rounds; i++) {
			await(s, i, j->mode);
			memcpy(out(s), arrived(s, j->size), j->size);
			push(s, j->size, j->mode);
		}
	}
	drain(s);
}

static void run(void *state, const struct job *j, struct samples *r) {
	static uint8_t input[LARGEST];
	struct side *s = state;
	char c;

	if (j->size > LARGEST) die("ofi", "no such job");
	if (write(s->channel, j, sizeof *j) != sizeof *j || read(s->channel, &c, 1) != 1) die("channel", "broken");
	s->got = 0;
	uint64_t begin = ticks(), last = begin;
	for (uint32_t i = 1; i <= j->rounds; i++) {
		if (j->mode == MODE_STREAM) {
			while (s->in_flight >= j->in_flight && s->in_flight > 0) poll_cq(s);
			push(s, j->size, MODE_STREAM);
			continue;
		}
		last = think(j->mode, last);
		memcpy(out(s), input, j->size);
		push(s, j->size, j->mode);
		await(s, i, j->mode);
		memcpy(input, arrived(s, j->size), j->size);
		uint64_t end = ticks();
		sample(r, end - last);
		last = end;
	}
	if (j->mode == MODE_STREAM) {
		push(s, 1, MODE_SPIN);
		await(s, 1, MODE_SPIN);
		last = ticks();
	}
	drain(s);
	r->total_ns = ticks_ns(last - begin);
}

void bare_ofi(const char *provider, const char *host) {
	static struct side s;
	int pair[2];
	struct job j;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0) die("socketpair", "failed");
	pid_t other = fork(); /* before libfabric is loaded */
	if (other < 0) die("fork", "failed");
	s.channel = pair[other == 0];
	close(pair[other != 0]);
	if (other == 0) prctl(PR_SET_PDEATHSIG, SIGKILL);
	settle(other == 0);
	open_side(&s, provider, host);
	meet(&s);
	if (other != 0) {
		serve(run, &s);
		return;
	}
	while (read(s.channel, &j, sizeof j) == sizeof j) respond(&s, &j);
	_exit(0);
}
