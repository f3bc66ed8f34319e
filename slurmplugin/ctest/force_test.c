/* Force on fake trees that are plain files, and, as root, on real cgroups of our own. */
#define _GNU_SOURCE
#include "../ask.h"
#include "../force.h"
#include "tap.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static char folder[] = "/tmp/gleaner-force-XXXXXX";
static struct gl_settings settings;

static void put(const char *path, const char *text)
{
	FILE *out = fopen(path, "w");
	if (out == NULL)
		exit(2);
	fputs(text, out);
	fclose(out);
}

static const char *in(const char *rest)
{
	static char path[4][512];
	static int turn;
	turn = (turn + 1) % 4;
	snprintf(path[turn], sizeof path[0], "%s/%s", folder, rest);
	return path[turn];
}

static pid_t child(void)
{
	pid_t pid = fork();
	if (pid == 0) {
		for (;;)
			pause();
	}
	return pid;
}

/* Reaps from another process's point of view: the tree's list empties when the child is gone. */
static int killed(pid_t pid)
{
	int status = 0;
	for (int i = 0; i < 2000; i++) {
		if (waitpid(pid, &status, WNOHANG) == pid)
			return WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
		usleep(1000);
	}
	kill(pid, SIGKILL);
	waitpid(pid, &status, 0);
	return 0;
}

/* A plain file does not empty when its processes die, so the time bound is what ends this; and pid 0 must not be us. */
static void fake_tree(void)
{
	struct gl_force r;
	char text[64];
	pid_t inside = child(), outside = child();
	mkdir(in("mount point"), 0700);
	mkdir(in("mount point/gleaner-test"), 0700);
	mkdir(in("mount point/gleaner-test/n1"), 0700);
	mkdir(in("mount point/gleaner-test/n1/l1-0"), 0700);
	mkdir(in("mount point/gleaner-test/n2"), 0700);
	snprintf(text, sizeof text, "0\n1\n%d\n%d\n", (int)getpid(), (int)inside);
	put(in("mount point/gleaner-test/n1/l1-0/cgroup.procs"), text);
	put(in("mount point/gleaner-test/n1/l1-0/freezer.state"), "THAWED\n");
	put(in("mount point/gleaner-test/n1/freezer.state"), "THAWED\n");
	snprintf(text, sizeof text, "%d\n", (int)outside);
	put(in("mount point/gleaner-test/n2/cgroup.procs"), text);
	char info[1024];
	snprintf(info, sizeof info,
		 "22 1 0:20 / /proc rw - proc proc rw\n"
		 "30 25 0:26 / %s/mount\\040point rw,nosuid shared:9 - cgroup cgroup rw,freezer\n"
		 "31 25 0:27 / %s/absent rw - cgroup2 cgroup2 rw\nbroken\n - cgroup\n", folder, folder);
	put(in("mountinfo"), info);
	settings.force_ms = 60;
	OK(!gl_force(&settings, 7, in("mountinfo"), &r) && r.trees == 1 && r.signals >= 1, "one tree found, signals sent");
	OK(r.left == 1 && r.ms >= 60 && r.ms < 1000, "%u listed at the end of its time, after %u ms", r.left, r.ms);
	OK(killed(inside), "what is in the tree was killed");
	OK(access(in("mount point/gleaner-test/n1/shut.7"), F_OK) == 0, "the node is shut");
	OK(kill(outside, 0) == 0, "another node's was not");
	kill(outside, SIGKILL);
	waitpid(outside, NULL, 0);
	memcpy(settings.node, "n9", 3);
	OK(gl_force(&settings, 7, in("mountinfo"), &r) && r.trees == 0 && r.ms < 50, "nothing harvested, nothing done");
	OK(!gl_force(&settings, 7, in("nothing"), &r), "no mountinfo is a failure that is told");
	OK(gl_force_nothing_left(&settings, in("mountinfo")) && !gl_force_nothing_left(&settings, in("nothing")), "nothing left, if that can be seen");
}

static void clean_fake(void)
{
	static const char *const files[] = {"mount point/gleaner-test/n1/l1-0/cgroup.procs", "mount point/gleaner-test/n1/l1-0/freezer.state",
					    "mount point/gleaner-test/n1/freezer.state", "mount point/gleaner-test/n2/cgroup.procs", "mountinfo"};
	static const char *const dirs[] = {"mount point/gleaner-test/n1/shut.7", "mount point/gleaner-test/n1/l1-0", "mount point/gleaner-test/n1", "mount point/gleaner-test/n2",
					   "mount point/gleaner-test", "mount point", ""};
	for (size_t i = 0; i < sizeof files / sizeof *files; i++)
		unlink(in(files[i]));
	for (size_t i = 0; i < sizeof dirs / sizeof *dirs; i++)
		rmdir(in(dirs[i]));
}

/* Makes <root>/<parent>/n1/l1-0 and puts pid there. */
static int enter(const char *root, const char *parent, pid_t pid)
{
	char path[512], text[32];
	const char *const parts[] = {"", "/n1", "/n1/l1-0"};
	for (int i = 0; i < 3; i++) {
		snprintf(path, sizeof path, "%s/%s%s", root, parent, parts[i]);
		if (mkdir(path, 0755) != 0 && errno != EEXIST)
			return 0;
	}
	snprintf(path, sizeof path, "%s/%s/n1/l1-0/cgroup.procs", root, parent);
	snprintf(text, sizeof text, "%d", (int)pid);
	int fd = open(path, O_WRONLY);
	if (fd < 0)
		return 0;
	ssize_t n = write(fd, text, strlen(text));
	close(fd);
	return n > 0;
}

static void leave(const char *root, const char *parent)
{
	char path[512];
	const char *const parts[] = {"/n1/shut.7", "/n1/l1-0", "/n1", ""};
	for (int i = 0; i < 4; i++) {
		snprintf(path, sizeof path, "%s/%s%s", root, parent, parts[i]);
		for (int tries = 0; rmdir(path) != 0 && errno == EBUSY && tries < 5000; tries++)
			usleep(2000);
	}
}

/* A process that ignores what can be ignored and forks all the time: only freezing or cgroup.kill ends it within its 5 s. */
static void fork_chain(void)
{
	signal(SIGCHLD, SIG_IGN);
	for (time_t until = time(NULL) + 5; time(NULL) < until;) {
		pid_t pid = fork();
		if (pid < 0)
			continue;
		if (pid > 0)
			_exit(0);
	}
	_exit(0);
}

static void real(const char *root, const char *kind)
{
	char parent[64];
	struct gl_force r;
	snprintf(parent, sizeof parent, "gleaner-ctest-%d", (int)getpid());
	gl_settings_defaults(&settings);
	snprintf(settings.cgroup, sizeof settings.cgroup, "%s", parent);
	memcpy(settings.node, "n1", 3);
	int go[2];
	if (pipe(go) != 0)
		exit(2);
	pid_t still = child(), forks = fork();
	if (forks == 0) {
		char c;
		(void)!read(go[0], &c, 1); /* not before it is in its cgroup */
		fork_chain();
	}
	if (!enter(root, parent, still) || !enter(root, parent, forks)) {
		SKIP("cannot make cgroups there");
		kill(still, SIGKILL);
		kill(forks, SIGKILL);
	} else {
		(void)!write(go[1], "x", 1);
		OK(!gl_force_nothing_left(&settings, "/proc/self/mountinfo"), "%s: seen before", kind);
		bool gone = gl_force(&settings, 7, "/proc/self/mountinfo", &r);
		OK(gone && r.trees >= 1 && r.left == 0, "%s: all gone in %u ms, %u signals", kind, r.ms, r.signals);
		OK(killed(still), "%s: the quiet one too", kind);
		OK(gl_force(&settings, 7, "/proc/self/mountinfo", &r) && r.signals == 0, "%s: again finds nothing", kind);
		OK(gl_force_nothing_left(&settings, "/proc/self/mountinfo"), "%s: nothing left", kind);
	}
	while (waitpid(-1, NULL, WNOHANG) > 0)
		;
	waitpid(forks, NULL, 0);
	waitpid(still, NULL, 0);
	close(go[0]);
	close(go[1]);
	leave(root, parent);
}

static const char *first_of(const char *const *roots)
{
	for (; *roots != NULL; roots++) {
		char path[512];
		snprintf(path, sizeof path, "%s/cgroup.procs", *roots);
		if (access(path, W_OK) == 0)
			return *roots;
	}
	return NULL;
}

int main(void)
{
	static const char *const v1[] = {"/sys/fs/cgroup/freezer", NULL};
	static const char *const v1_plain[] = {"/sys/fs/cgroup/pids", NULL};
	static const char *const v2[] = {"/sys/fs/cgroup/unified", "/sys/fs/cgroup", NULL};
	if (mkdtemp(folder) == NULL)
		return 2;
	setvbuf(stdout, NULL, _IONBF, 0); /* children inherit no half-written line */
	gl_settings_defaults(&settings);
	memcpy(settings.cgroup, "gleaner-test", 13);
	memcpy(settings.node, "n1", 3);
	fake_tree();
	clean_fake();
	const char *root;
	if ((root = first_of(v1)) != NULL)
		real(root, "v1 freezer");
	else
		SKIP("no writable cgroup v1 freezer here: needs root and v1");
	if ((root = first_of(v1_plain)) != NULL)
		real(root, "v1 pids, without freezer");
	else
		SKIP("no writable cgroup v1 pids controller here: needs root and v1");
	if ((root = first_of(v2)) != NULL)
		real(root, "v2");
	else
		SKIP("no writable cgroup v2 here: needs root");
	return tap_end();
}
