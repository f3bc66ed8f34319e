/*
 * hook: the node's Prolog and Epilog. A failing or hanging Prolog drains its node, so this one is a static binary that uses one
 * local socket, calls no Slurm command, has deadlines for everything, and always exits 0.
 *
 *   hook prolog|epilog [key=value ...]
 *
 * Slurm runs Prolog= and Epilog= without arguments: then the role is the name it was called by (a link named prolog or epilog) or
 * SLURM_SCRIPT_CONTEXT, and the words come from /etc/gleaner/hook.conf, one per line, # for comments; conf=FILE on the command
 * line names another. The words are those of settings.h.
 *
 * prolog, mode=warn:   Warn, with the GPU ids that the gate cannot know; waits for Ack only. The gate claims the rest.
 * prolog, mode=blunt:  a site without the SPANK plugin: no core ids are known, everything harvested on the node goes, by force
 *                      when the agent does not see to it.
 * epilog:              Release.
 */
#define _GNU_SOURCE
#include "../gate.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum role { NOTHING, PROLOG, EPILOG };

static const char standard_conf[] = "/etc/gleaner/hook.conf";

static void complain(const char *what, const char *why)
{
	fprintf(stderr, "gleaner hook: %s: %s\n", what, why);
}

static enum role role_of(const char *name)
{
	if (name == NULL)
		return NOTHING;
	const char *slash = strrchr(name, '/');
	name = slash ? slash + 1 : name;
	if (strcmp(name, "prolog") == 0 || strcmp(name, "prolog_slurmd") == 0)
		return PROLOG;
	if (strcmp(name, "epilog") == 0 || strcmp(name, "epilog_slurmd") == 0)
		return EPILOG;
	return NOTHING;
}

static void word(struct gl_settings *s, const char *source, const char *text)
{
	char why[512];
	if (!gl_settings_word(s, text, why, sizeof why))
		complain(source, why);
}

static void read_conf(struct gl_settings *s, const char *path, bool must_exist)
{
	FILE *in = fopen(path, "re");
	if (in == NULL) {
		if (must_exist || errno != ENOENT)
			complain(path, strerror(errno));
		return;
	}
	char line[1024];
	while (fgets(line, sizeof line, in) != NULL) {
		line[strcspn(line, "#\r\n")] = '\0';
		char *rest, *w = strtok_r(line, " \t", &rest);
		for (; w != NULL; w = strtok_r(NULL, " \t", &rest))
			word(s, path, w);
	}
	fclose(in);
}

/* The file first, the command line over it. */
static void configure(struct gl_settings *s, int argc, char *argv[], int first)
{
	const char *conf = NULL;
	gl_settings_defaults(s);
	for (int i = first; i < argc; i++) {
		if (strncmp(argv[i], "conf=", 5) == 0)
			conf = argv[i] + 5;
	}
	read_conf(s, conf ? conf : standard_conf, conf != NULL);
	for (int i = first; i < argc; i++) {
		if (strncmp(argv[i], "conf=", 5) != 0)
			word(s, "argument", argv[i]);
	}
}

static bool number(const char *name, uint32_t *value)
{
	const char *text = getenv(name);
	if (text == NULL || *text < '0' || *text > '9')
		return false;
	char *end;
	errno = 0;
	unsigned long n = strtoul(text, &end, 10);
	if (errno != 0 || *end != '\0' || n > UINT32_MAX)
		return false;
	*value = (uint32_t)n;
	return true;
}

/* GRES indexes as slurmd writes them, such as 0,1 or 0-3; anything else is no list. */
static const char *gpu_list(void)
{
	const char *gpus = getenv("SLURM_JOB_GPUS");
	if (gpus == NULL || strlen(gpus) > 2048 || strspn(gpus, "0123456789,-") != strlen(gpus))
		return NULL;
	return gpus;
}

static void say(const char *text)
{
	if (text[0] != '\0')
		fprintf(stderr, "%s\n", text);
}

static void prolog(const struct gl_settings *s, struct gl_frame *f)
{
	char text[512];
	f->gpus = gl_text(gpu_list());
	if (!s->blunt) {
		f->kind = GL_WARN;
		(void)gl_ask(s, f, GL_ACK, NULL, NULL); /* the gate comes next and is not so easily content */
		return;
	}
	f->kind = GL_CLAIM;
	f->flags = GL_FLAG_BLUNT;
	f->mib = GL_MEMORY_UNKNOWN;
	struct gl_outcome o = gl_gate(s, f);
	gl_outcome_text(&o, text, sizeof text);
	say(text);
}

static void run(enum role role, const struct gl_settings *s)
{
	struct gl_frame f = {.step = GL_STEP_NONE, .uid = UINT32_MAX, .nanos = gl_realtime_ns(), .node = gl_text(s->node)};
	if (!number("SLURM_JOB_ID", &f.job)) {
		complain("SLURM_JOB_ID", "not set: only slurmd runs this");
		return;
	}
	(void)number("SLURM_JOB_UID", &f.uid);
	if (role == PROLOG) {
		prolog(s, &f);
		return;
	}
	f.kind = GL_RELEASE;
	(void)gl_ask(s, &f, GL_DONE, NULL, NULL);
}

int main(int argc, char *argv[])
{
	struct gl_settings s;
	char why[512];
	int first = 1;
	enum role role = NOTHING;

	if (argc > 1 && (role = role_of(argv[1])) != NOTHING)
		first = 2;
	if (role == NOTHING)
		role = role_of(argc > 0 ? argv[0] : NULL);
	if (role == NOTHING)
		role = role_of(getenv("SLURM_SCRIPT_CONTEXT"));
	configure(&s, argc, argv, first);
	if (role == NOTHING)
		complain("role", "call it as: hook prolog|epilog [key=value ...]");
	else if (!gl_settings_node(&s, getenv("SLURMD_NODENAME"), why, sizeof why))
		complain("node", why);
	else
		run(role, &s);
	return 0;
}
