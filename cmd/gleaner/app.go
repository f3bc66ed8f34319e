package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"

	"github.com/spf13/cobra"

	"github.com/gleaner-hpc/gleaner/client"
	"github.com/gleaner-hpc/gleaner/config"
	"github.com/gleaner-hpc/gleaner/identity"
	"github.com/gleaner-hpc/gleaner/identity/certs"
)

// Exit codes; docs/user-guide.md explains them.
const (
	exitOK          = 0
	exitFailed      = 1   // some tasks failed, or the command itself did
	exitUsage       = 2   // bad arguments or input
	exitUnreachable = 3   // broker not reachable, or it cannot do this now
	exitDenied      = 4   // denied, or no node could ever hold it
	exitLeft        = 5   // the lease ended before all tasks were done; run it again to resume
	exitInterrupted = 130 // by a signal
)

// app is one run of the command with everything that it takes from outside.
type app struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	getenv         func(string) string
	connector      client.Connector // nil: package fabric; tests bring their own

	output   string
	broker   string
	identity string

	awaited string // the last line of await
}

// exitError carries an exit code of its own.
type exitError struct {
	code int
	err  error // nil when all has been said
}

func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit status %d", e.code)
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

// usage marks an error as the user's.
func usage(format string, args ...any) error {
	return &exitError{exitUsage, fmt.Errorf(format, args...)}
}

func (a *app) main(ctx context.Context, args []string) int {
	root := a.root()
	root.SetArgs(args)
	return a.finish(ctx, root.ExecuteContext(ctx))
}

// finish says what went wrong and chooses the exit code.
func (a *app) finish(ctx context.Context, err error) int {
	if err == nil {
		return exitOK
	}
	var coded *exitError
	isCoded := errors.As(err, &coded)
	switch {
	case !isCoded && ctx.Err() != nil:
		fmt.Fprintln(a.stderr, "gleaner: interrupted")
	case !isCoded || coded.err != nil:
		fmt.Fprintln(a.stderr, "gleaner:", err)
		if advice := a.advice(err); advice != "" {
			fmt.Fprintln(a.stderr, "       ", advice)
		}
	}
	switch {
	case isCoded:
		return coded.code
	case ctx.Err() != nil:
		return exitInterrupted
	case errors.Is(err, client.ErrUnreachable):
		return exitUnreachable
	case errors.Is(err, client.ErrDenied), errors.Is(err, client.ErrNoCapacity):
		return exitDenied
	case errors.Is(err, client.ErrInvalid), errors.Is(err, client.ErrNotFound):
		return exitUsage
	case errors.Is(err, client.ErrEnded):
		return exitLeft
	}
	return exitFailed
}

// advice says what to do about an error.
func (a *app) advice(err error) string {
	switch {
	case errors.Is(err, client.ErrNotNow): // the error says it all
		return ""
	case errors.Is(err, client.ErrUnreachable):
		return "Is the broker running, and is its address right? It is read from --broker, $GLEANER_BROKER, or broker.address in " + a.confPath() + "."
	case errors.Is(err, client.ErrNoCapacity):
		return "Ask for less per executor, or see with 'gleaner nodes' what nodes have."
	}
	return ""
}

func (a *app) confPath() string {
	if path := a.getenv("GLEANER_CONF"); path != "" {
		return path
	}
	if _, err := os.Stat("/etc/gleaner/client.toml"); err == nil {
		return "/etc/gleaner/client.toml"
	}
	return "/etc/gleaner/agent.toml"
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use: "gleaner", SuggestionsMinimumDistance: 2, Version: version, SilenceErrors: true, SilenceUsage: true,
		Short: "Run functions on the cores and memory that Slurm has given to nobody",
		Long: `gleaner runs functions on the cores and memory that Slurm has given to nobody, and gives them back the moment a job needs them.

Environment: GLEANER_BROKER host:port of the broker; GLEANER_CONF file that names it otherwise (/etc/gleaner/client.toml, else
agent.toml); GLEANER_CA certificate that signs the broker's; SLURM_JWT the caller's token where identity.method is jwt;
GLEANER_OUTPUT_MODE text, json or csv; GLEANER_EXECUTORS, GLEANER_MEM_PER_EXECUTOR, GLEANER_CORES_PER_EXECUTOR defaults of map and invoke.

Exit status: 0 all right, 1 some tasks failed, 2 bad arguments or input, 3 broker not reachable or not able
to now, 4 denied or no node could ever hold it, 5 the lease ended before all tasks were done, 130 interrupted.`,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			if near := c.SuggestionsFor(args[0]); len(near) > 0 {
				return usage("no command %q; did you mean %q?", args[0], near[0])
			}
			return usage("no command %q; see 'gleaner --help'", args[0])
		},
		RunE:              func(c *cobra.Command, _ []string) error { return c.Help() },
		PersistentPreRunE: func(*cobra.Command, []string) error { return a.checkFlags() },
	}
	root.SetIn(a.stdin)
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	mode := a.getenv("GLEANER_OUTPUT_MODE")
	if mode == "" {
		mode = "text"
	}
	flags := root.PersistentFlags()
	flags.StringVar(&a.output, "output", mode, "text, json or csv (report, simulate and estimate: also html)")
	flags.StringVar(&a.broker, "broker", a.getenv("GLEANER_BROKER"), "the broker, host:port")
	flags.StringVar(&a.identity, "identity", "", "how to say who calls: munge, jwt or none")
	_ = flags.MarkHidden("identity")
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return &exitError{exitUsage, err} })
	root.AddCommand(a.nodesCommand(), a.leasesCommand(), a.releaseCommand(), a.invokeCommand(), a.mapCommand(), a.runCommand(),
		a.sbatchCommand(), a.reportCommand(), a.simulateCommand(), a.estimateCommand(), a.explainCommand(), a.checkCommand(), a.benchCommand(), a.policyCommand(), a.snippetCommand(), a.versionCommand())
	for _, c := range root.Commands() {
		if args := c.Args; args != nil {
			c.Args = func(c *cobra.Command, given []string) error {
				if err := args(c, given); err != nil {
					return usage("%v; see 'gleaner %s --help'", err, c.Name())
				}
				return nil
			}
		}
	}
	return root
}

func (a *app) checkFlags() error {
	switch a.output {
	case "text", "json", "csv", "html":
		return nil
	}
	return usage("output %q: want text, json or csv; report, simulate and estimate make html, too", a.output)
}

// dial prepares a client of the broker that flags, environment or configuration name.
func (a *app) dial() (*client.Client, error) {
	c, err := a.connection()
	if err != nil {
		return nil, err
	}
	method, err := identity.New(cmp.Or(a.identity, c.Identity.Method, "munge"), identity.Options{MungeSocket: c.Broker.MungeSocket, Getenv: a.getenv})
	if err != nil {
		return nil, err
	}
	if _, bearer := method.(*identity.JWT); bearer && c.TLS.CAFile == "" {
		return nil, usage("identity jwt sends a token that whoever overhears it can use: set tls.ca_file in %s, or GLEANER_CA", a.confPath())
	}
	dialled := client.Config{Broker: c.Broker.Address, Identity: method, Connect: a.connector}
	if c.TLS.CAFile != "" {
		if dialled.TLS, err = certs.Client(certs.Files{CA: c.TLS.CAFile, ServerName: c.TLS.ServerName}); err != nil {
			return nil, &exitError{exitUsage, fmt.Errorf("tls: %w", err)}
		}
	}
	return client.Dial(dialled)
}

// connection joins what flags, environment and configuration say of the broker.
func (a *app) connection() (*config.Client, error) {
	path := a.confPath()
	c := &config.Client{TLS: config.ClientTLS{CAFile: a.getenv("GLEANER_CA")}}
	if _, err := os.Stat(path); err == nil || a.getenv("GLEANER_CONF") != "" {
		read, err := config.LoadClient(path)
		if err != nil && a.broker == "" {
			return nil, &exitError{exitUsage, err}
		}
		if err == nil {
			c = read
		}
	}
	c.Broker.Address = cmp.Or(a.broker, c.Broker.Address)
	if c.Broker.Address == "" {
		return nil, usage("no broker: set GLEANER_BROKER to host:port, or broker.address in %s", path)
	}
	if _, _, err := net.SplitHostPort(c.Broker.Address); err != nil {
		return nil, usage("broker %q: want host:port, such as head:7461", c.Broker.Address)
	}
	return c, nil
}

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprintln(a.stdout, "gleaner", version)
			return err
		},
	}
}

func (a *app) checkCommand() *cobra.Command {
	check := &cobra.Command{
		Use: "check", Short: "Check a configuration, or what a node can give",
		RunE: func(*cobra.Command, []string) error { return usage("check what? See 'gleaner check --help'") },
	}
	check.AddCommand(a.checkNodeCommand(), a.checkConfigCommand())
	return check
}
