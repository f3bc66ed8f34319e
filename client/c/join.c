/* Joining a lease: connecting to gleaner run, and what it says first. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "inside.h"

enum { JOIN_TIMEOUT_MS = 10000 };

/* reach connects to gleaner run, which has to be the same user's. */
static int reach(gleaner *g, const char *path) {
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	struct ucred peer;
	socklen_t n = sizeof peer;
	uint8_t hello[SHARE_OUT];

	if (strlen(path) >= sizeof a.sun_path) return text_fail(GLEANER_INVALID, "path of the lease's socket is too long: %.200s", path);
	memcpy(a.sun_path, path, strlen(path) + 1);
	g->share = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (g->share < 0 || connect(g->share, (struct sockaddr *)&a, sizeof a) != 0)
		return text_fail(GLEANER_UNREACHABLE, "connect to %.200s: %s", path, strerror(errno));
	if (getsockopt(g->share, SOL_SOCKET, SO_PEERCRED, &peer, &n) != 0 || (peer.uid != geteuid() && peer.uid != 0))
		return text_fail(GLEANER_UNREACHABLE, "%.200s belongs to another user", path);
	if (lease_say(g, hello, share_hello(hello)) != 0) return text_fail(GLEANER_UNREACHABLE, "send to %.200s: %s", path, strerror(errno));
	return GLEANER_OK;
}

/* take receives once, with a descriptor if one comes along. */
static ssize_t take(gleaner *g, int *fd) {
	union {
		struct cmsghdr align;
		char space[CMSG_SPACE(sizeof(int))];
	} u;
	struct iovec v = {.iov_base = g->in + g->in_bytes, .iov_len = sizeof g->in - g->in_bytes};
	struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = u.space, .msg_controllen = sizeof u.space};
	ssize_t n = recvmsg(g->share, &m, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);

	for (struct cmsghdr *h = n > 0 ? CMSG_FIRSTHDR(&m) : NULL; h != NULL; h = CMSG_NXTHDR(&m, h)) {
		if (h->cmsg_level != SOL_SOCKET || h->cmsg_type != SCM_RIGHTS || h->cmsg_len != CMSG_LEN(sizeof(int))) continue;
		if (*fd >= 0) close(*fd);
		memcpy(fd, CMSG_DATA(h), sizeof *fd);
	}
	return n;
}

/* admitted waits for gleaner run's first frame: the lease, with the library as a descriptor. */
static int admitted(gleaner *g, int *fd) {
	int64_t give_up = gleaner_now() + (int64_t)JOIN_TIMEOUT_MS * 1000000;
	long n;

	while ((n = share_decode(&g->lease, g->in, g->in_bytes)) == 0) {
		struct pollfd p = {.fd = g->share, .events = POLLIN};
		int64_t left = (give_up - gleaner_now()) / 1000000;
		ssize_t got;
		if (left <= 0 || (poll(&p, 1, (int)left) == 0)) return text_fail(GLEANER_UNREACHABLE, "gleaner run does not answer in time");
		got = take(g, fd);
		if (got < 0 && (errno == EAGAIN || errno == EINTR)) continue;
		if (got <= 0) return text_fail(GLEANER_UNREACHABLE, "gleaner run has closed the connection");
		g->in_bytes += (size_t)got;
	}
	if (n > 0 && g->lease.type == SHARE_ENDED) return text_fail(GLEANER_ENDED, "%s", g->lease.text);
	if (n < 0 || g->lease.type != SHARE_LEASE || *fd < 0) return text_fail(GLEANER_PROTOCOL, "its first frame is no lease of version %d", SHARE_VERSION);
	g->in_bytes -= (size_t)n;
	memmove(g->in, g->in + n, g->in_bytes);
	return GLEANER_OK;
}

static int map_code(gleaner *g, int fd) {
	struct stat st;
	int seals = fcntl(fd, F_GET_SEALS);
	void *code;

	if (fstat(fd, &st) != 0 || (uint64_t)st.st_size < g->lease.code_bytes || seals < 0 || (seals & F_SEAL_SHRINK) == 0)
		return text_fail(GLEANER_PROTOCOL, "the function's library does not come in a sealed memory file");
	code = mmap(NULL, g->lease.code_bytes, PROT_READ, MAP_PRIVATE, fd, 0);
	if (code == MAP_FAILED) return text_fail(GLEANER_NO_MEMORY, "map the function's library: %s", strerror(errno));
	g->code = code;
	return GLEANER_OK;
}

int lease_join(gleaner *g, const char *path) {
	int fd = -1, rc = reach(g, path);

	if (rc == GLEANER_OK) rc = admitted(g, &fd);
	if (rc == GLEANER_OK) rc = map_code(g, fd);
	if (fd >= 0) close(fd);
	return rc;
}
