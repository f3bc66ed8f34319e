package main

import (
	_ "embed"
	"fmt"
	"os"
	"path/filepath"
	"text/template"

	"github.com/spf13/cobra"
)

//go:embed snippet.tmpl
var snippetText string

func (a *app) snippetCommand() *cobra.Command {
	var prefix, socket, plugin string
	c := &cobra.Command{
		Use: "slurm-snippet", Short: "Print the lines for slurm.conf and plugstack.conf", Args: cobra.NoArgs,
		Long: "Print the lines by which Slurm loads Gleaner's gate and runs its hook, with the paths of this installation. Nothing is changed.",
		RunE: func(*cobra.Command, []string) error {
			if prefix == "" {
				prefix = installation()
			}
			if !filepath.IsAbs(prefix) {
				return usage("--prefix %s: want an absolute path", prefix)
			}
			if plugin == "" {
				plugin = pluginBelow(prefix)
			}
			t, err := template.New("snippet").Parse(snippetText)
			if err != nil {
				return fmt.Errorf("slurm-snippet: %w", err)
			}
			return t.Execute(a.stdout, map[string]string{"Hook": filepath.Join(prefix, "libexec", "gleaner", "hook"), "Plugin": plugin, "Socket": socket})
		},
	}
	c.Flags().StringVar(&prefix, "prefix", "", "where Gleaner is installed; otherwise found from this program's own path")
	c.Flags().StringVar(&socket, "socket", "/run/gleaner/agent.sock", "the agent's socket, as in agent.toml")
	c.Flags().StringVar(&plugin, "plugin", "", "path of spank_gleaner.so; otherwise PREFIX/lib/slurm/spank_gleaner.so, or the one in Slurm's PluginDir")
	return c
}

// pluginBelow names the gate below a prefix; one that make install has put into Slurm's PluginDir needs no path.
func pluginBelow(prefix string) string {
	const name = "spank_gleaner.so"
	plugin := filepath.Join(prefix, "lib", "slurm", name)
	if _, err := os.Stat(plugin); err != nil {
		return name
	}
	return plugin
}

// installation is the prefix that this program was installed below.
func installation() string {
	if self, err := os.Executable(); err == nil {
		if resolved, err := filepath.EvalSymlinks(self); err == nil {
			self = resolved
		}
		return filepath.Dir(filepath.Dir(self))
	}
	return "/usr/local"
}
