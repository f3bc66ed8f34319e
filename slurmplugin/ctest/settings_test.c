#define _GNU_SOURCE
#include "../settings.h"
#include "tap.h"

#include <string.h>
#include <unistd.h>

static char why[512];

static int word(struct gl_settings *s, const char *w)
{
	why[0] = '\0';
	return gl_settings_word(s, w, why, sizeof why);
}

static void accepts(void)
{
	struct gl_settings s;
	gl_settings_defaults(&s);
	OK(strcmp(s.socket, "/run/gleaner/agent.sock") == 0 && strcmp(s.cgroup, "gleaner") == 0 && s.ack_ms == 50 &&
		   s.done_ms == 1000 && !s.blunt, "defaults");
	OK(word(&s, "socket=/tmp/%n.sock") && word(&s, "cgroup=a/b-%n") && word(&s, "ack=1") && word(&s, "deadline=60000") &&
		   word(&s, "mode=blunt") && word(&s, "force=10"), "good words");
	OK(gl_settings_node(&s, "n01", why, sizeof why) && strcmp(s.socket, "/tmp/n01.sock") == 0 &&
		   strcmp(s.cgroup, "a/b-n01") == 0 && strcmp(s.node, "n01") == 0, "%%n is the node's name");
	OK(s.ack_ms == 1 && s.done_ms == 60000 && s.force_ms == 10 && s.blunt, "numbers and mode");
}

static void refuses(void)
{
	static const char *const bad[] = {
		"", "socket", "=", "=x", "socket=", "socket=relative", "cgroup=", "cgroup=/abs", "cgroup=..", "cgroup=a/../b", "cgroup=a//b",
		"cgroup=a/", "cgroup=.", "ack=0", "ack=1001", "ack=-1", "ack=x", "ack=5x", "ack= 5", "deadline=60001",
		"deadline=99999999999999999999", "mode=loud", "colour=red", "sock=/x", "sockets=/x",
	};
	struct gl_settings s, before;
	gl_settings_defaults(&s);
	before = s;
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
		OK(!word(&s, bad[i]) && why[0] != '\0', "\"%s\" is refused with a reason", bad[i]);
	OK(memcmp(&s, &before, sizeof s) == 0, "refused words change nothing");
	char longer[600];
	memset(longer, 'x', sizeof longer);
	memcpy(longer, "socket=/", 8);
	longer[sizeof longer - 1] = '\0';
	OK(!word(&s, longer), "a path too long is refused");
}

static void nodes(void)
{
	struct gl_settings s;
	char host[256] = "";
	gethostname(host, sizeof host - 1);
	host[strcspn(host, ".")] = '\0';
	static const char *const bad[] = {"", "../x", "a/b", ".", "-n", "a b", "n\n"};
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		gl_settings_defaults(&s);
		OK(gl_settings_node(&s, bad[i], why, sizeof why) && strcmp(s.node, host) == 0, "node name %zu falls back to the host's", i);
	}
	gl_settings_defaults(&s);
	OK(gl_settings_node(&s, NULL, why, sizeof why) && strcmp(s.node, host) == 0, "so does none");
	char name[250];
	memset(name, 'n', sizeof name);
	name[sizeof name - 1] = '\0';
	gl_settings_defaults(&s);
	OK(word(&s, "socket=/run/%n/agent.sock") && !gl_settings_node(&s, name, why, sizeof why), "a socket path too long is said to be");
	gl_settings_defaults(&s);
	OK(word(&s, "socket=/run/100%%.sock") && gl_settings_node(&s, "n", why, sizeof why) && strcmp(s.socket, "/run/100%.sock") == 0,
	   "%%%% is a per cent sign");
}

int main(void)
{
	accepts();
	refuses();
	nodes();
	return tap_end();
}
