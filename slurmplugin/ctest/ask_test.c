/* Asking agents of every temper, each a thread of this process behind a socket in a temporary folder. */
#define _GNU_SOURCE
#include "../ask.h"
#include "tap.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

struct agent {
	int listener;
	const char *script; /* one letter per step: see answer */
};

static char folder[] = "/tmp/gleaner-ask-XXXXXX";
static struct gl_settings settings;

static gl_empty *empty; /* what the next talk has at hand */
static int looks;

static bool at_third_look(const struct gl_settings *s)
{
	(void)s;
	return ++looks == 3;
}

static int reply(int fd, enum gl_kind kind, uint16_t flags, int cut)
{
	uint8_t buf[GL_FRAME_MAX];
	struct gl_frame f = {.kind = (uint16_t)kind, .flags = flags, .evicted = 3};
	size_t n = gl_frame_encode(&f, buf, sizeof buf);
	for (size_t i = 0; i < (cut ? n / 2 : n); i++) { /* byte by byte: the reader has to put it together */
		if (send(fd, buf + i, 1, MSG_NOSIGNAL) != 1)
			return -1;
	}
	return 0;
}

static void *serve(void *arg)
{
	struct agent *a = arg;
	uint8_t buf[GL_FRAME_MAX];
	char end;
	int fd = accept(a->listener, NULL, NULL);
	ssize_t n = recv(fd, buf, sizeof buf, 0);
	for (const char *step = a->script; n > 0 && *step != '\0'; step++) {
		switch (*step) {
		case 'a': reply(fd, GL_ACK, 0, 0); break;
		case 'q': reply(fd, GL_ACK, GL_FLAG_QUIET, 0); break;
		case 'd': reply(fd, GL_DONE, 0, 0); break;
		case 'f': reply(fd, GL_FAILED, 0, 0); break;
		case 'p': reply(fd, GL_PING, 0, 0); break;
		case 'c': reply(fd, GL_ACK, 0, 1); break;
		case 'g': (void)!send(fd, "HTTP/1.1 400 Bad Request\r\n", 26, MSG_NOSIGNAL); break;
		case 'h': (void)!recv(fd, &end, 1, 0); break; /* hang until the other side gives up */
		}
	}
	close(fd);
	return NULL;
}

static int listen_at(const char *path, int backlog)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	memcpy(addr.sun_path, path, strlen(path) + 1);
	unlink(path);
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	if (bind(fd, (struct sockaddr *)&addr, sizeof addr) != 0 || listen(fd, backlog) != 0)
		exit(2);
	return fd;
}

static const struct gl_frame claim = {.kind = GL_CLAIM, .job = 1};

static void talk(const char *what, const char *script, enum gl_kind until, enum gl_verdict want, int least, int most)
{
	struct agent a = {.listener = listen_at(settings.socket, 8), .script = script};
	pthread_t thread;
	uint32_t evicted = 0;
	pthread_create(&thread, NULL, serve, &a);
	int64_t start = gl_monotonic_ms();
	enum gl_verdict got = gl_ask(&settings, &claim, until, empty, &evicted);
	int64_t ms = gl_monotonic_ms() - start;
	pthread_join(thread, NULL);
	close(a.listener);
	OK(got == want, "%s: %s", what, gl_verdict_text(got));
	OK(ms >= least && ms <= most, "%s: took %d ms", what, (int)ms);
	if (want == GL_OK)
		OK(evicted == 3, "%s: tells what was evicted", what);
}

/* Who listens counts, not what the socket is called: only root, and the owner of a folder that nobody else can write to. */
static void strangers(void)
{
	enum { AGENT = 64321, OTHER = 64322 };
	static const struct {
		const char *what;
		uid_t listens, owns;
		mode_t mode;
		enum gl_verdict want;
	} cases[] = {
		{"the agent's user in its own folder", AGENT, AGENT, 0755, GL_NO_DONE},
		{"root in the agent's folder", 0, AGENT, 0755, GL_NO_DONE},
		{"another user in the agent's folder", OTHER, AGENT, 0755, GL_STRANGER},
		{"the agent's user in root's folder", AGENT, 0, 0755, GL_STRANGER},
		{"the agent's user in a folder for all", AGENT, AGENT, 0777, GL_STRANGER},
	};
	if (geteuid() != 0) {
		printf("ok # SKIP strangers: needs root, to be others\n");
		return;
	}
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		OK(chmod(folder, 0777) == 0 && seteuid(cases[i].listens) == 0, "%s: is another", cases[i].what);
		struct agent a = {.listener = listen_at(settings.socket, 8), .script = "ah"};
		pthread_t thread;
		OK(seteuid(0) == 0 && chown(folder, cases[i].owns, 0) == 0 && chmod(folder, cases[i].mode) == 0, "%s: is root", cases[i].what);
		pthread_create(&thread, NULL, serve, &a);
		enum gl_verdict got = gl_ask(&settings, &claim, GL_DONE, NULL, NULL);
		OK(got == cases[i].want, "%s: %s", cases[i].what, gl_verdict_text(got));
		pthread_join(thread, NULL);
		close(a.listener);
		unlink(settings.socket);
	}
	OK(chown(folder, 0, 0) == 0, "the folder is root's again");
}

static void nobody(void)
{
	unlink(settings.socket);
	OK(gl_ask(&settings, &claim, GL_DONE, NULL, NULL) == GL_NO_AGENT, "no socket");
	close(listen_at(settings.socket, 1));
	OK(gl_ask(&settings, &claim, GL_DONE, NULL, NULL) == GL_NO_AGENT, "a socket that nobody serves");
	int fd = listen_at(settings.socket, 0), stuck[8];
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	memcpy(addr.sun_path, settings.socket, strlen(settings.socket) + 1);
	for (int i = 0; i < 8; i++) {
		stuck[i] = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
		(void)!connect(stuck[i], (struct sockaddr *)&addr, sizeof addr);
	}
	int64_t start = gl_monotonic_ms();
	OK(gl_ask(&settings, &claim, GL_DONE, NULL, NULL) == GL_NO_ACK, "a full queue");
	OK(gl_monotonic_ms() - start < 500, "a full queue costs the first deadline only");
	for (int i = 0; i < 8; i++)
		close(stuck[i]);
	close(fd);
}

int main(void)
{
	if (mkdtemp(folder) == NULL)
		return 2;
	gl_settings_defaults(&settings);
	snprintf(settings.socket, sizeof settings.socket, "%s/s", folder);
	settings.ack_ms = 60;
	settings.done_ms = 250;
	/* the upper bounds leave room for a loaded machine under sanitizers */
	talk("done at once", "d", GL_DONE, GL_OK, 0, 400);
	talk("ack and done", "ad", GL_DONE, GL_OK, 0, 400);
	talk("ack is enough", "ah", GL_ACK, GL_OK, 0, 400);
	talk("silence", "h", GL_DONE, GL_NO_ACK, 60, 400);
	talk("half an ack", "ch", GL_DONE, GL_NO_ACK, 60, 400);
	talk("no done", "ah", GL_DONE, GL_NO_DONE, 250, 600);
	talk("failed", "af", GL_DONE, GL_REFUSED, 0, 400);
	talk("hangs up", "", GL_DONE, GL_GARBAGE, 0, 400);
	talk("hangs up after ack", "a", GL_DONE, GL_GARBAGE, 0, 400);
	talk("garbage", "g", GL_DONE, GL_GARBAGE, 0, 400);
	talk("a question for an answer", "p", GL_DONE, GL_GARBAGE, 0, 400);
	talk("two acks", "aad", GL_DONE, GL_GARBAGE, 0, 400);
	empty = at_third_look;
	talk("nothing is left, nothing is being started", "qh", GL_DONE, GL_EMPTY, 60, 240);
	OK(looks == 3, "looked %d times", looks);
	looks = 0;
	talk("something may be being started", "ah", GL_DONE, GL_NO_DONE, 250, 600);
	talk("done is sooner than a look", "qd", GL_DONE, GL_OK, 0, 400);
	OK(looks == 0, "looked %d times where there is nothing to look for", looks);
	nobody();
	strangers();
	unlink(settings.socket);
	rmdir(folder);
	return tap_end();
}
