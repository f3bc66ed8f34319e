// Package sbatch is the wrapper's arithmetic: it takes Gleaner's options out of an sbatch command line and out of the #GLEANER
// lines of the script, and says with which arguments and environment sbatch is to be called. Everything else goes to sbatch as it
// was written. It runs nothing; the command line does.
package sbatch

import (
	"bufio"
	"bytes"
	"fmt"
	"strconv"
	"strings"

	"github.com/google/shlex"

	"github.com/gleaner-hpc/gleaner/client"
	"github.com/gleaner-hpc/gleaner/config"
)

// Variables by which a job's gleaner map, invoke and run know what its submitter asked for.
const (
	EnvExecutors = "GLEANER_EXECUTORS"
	EnvMemory    = "GLEANER_MEM_PER_EXECUTOR"
	EnvCores     = "GLEANER_CORES_PER_EXECUTOR"
	EnvFunction  = "GLEANER_FUNCTION"
	EnvSpin      = "GLEANER_SPIN" // libgleaner reads it too
	EnvImage     = "GLEANER_IMAGE"
)

// Wish is what the functions of a job need; empty fields were not given.
type Wish struct {
	Executors string
	Memory    string // per executor, in Slurm's units
	Cores     string // per executor
	Function  string // that gleaner run takes a lease for, LIBRARY:SYMBOL
	Spin      string // always, never or a time: how long both sides poll before they sleep
	Image     string // in which the functions run
}

// Environ lists the variables of w that are set.
func (w Wish) Environ() []string {
	var env []string
	for _, v := range []struct{ name, value string }{{EnvExecutors, w.Executors}, {EnvMemory, w.Memory}, {EnvCores, w.Cores}, {EnvFunction, w.Function}, {EnvSpin, w.Spin}, {EnvImage, w.Image}} {
		if v.value != "" {
			env = append(env, v.name+"="+v.value)
		}
	}
	return env
}

// Or fills what w leaves empty from other.
func (w Wish) Or(other Wish) Wish {
	for _, f := range []struct {
		to   *string
		from string
	}{{&w.Executors, other.Executors}, {&w.Memory, other.Memory}, {&w.Cores, other.Cores}, {&w.Function, other.Function}, {&w.Spin, other.Spin}, {&w.Image, other.Image}} {
		if *f.to == "" {
			*f.to = f.from
		}
	}
	return w
}

// Check says what is wrong with w.
func (w Wish) Check() error {
	for _, f := range []struct {
		option, value string
		limit         int
	}{{"--executors", w.Executors, 4096}, {"--cores-per-executor", w.Cores, 1024}} {
		if f.value == "" {
			continue
		}
		if n, err := strconv.Atoi(f.value); err != nil || n < 1 || n > f.limit {
			return fmt.Errorf("%s %s: want a number from 1 to %d", f.option, f.value, f.limit)
		}
	}
	if strings.Contains(w.Function, ",") {
		return fmt.Errorf("--function %s: sbatch's --export takes no comma", w.Function)
	}
	if strings.Contains(w.Image, ",") {
		return fmt.Errorf("--image %s: sbatch's --export takes no comma", w.Image)
	}
	if _, err := client.ParseSpin(w.Spin); err != nil {
		return fmt.Errorf("--spin: %w", err)
	}
	if w.Memory != "" {
		if _, err := config.ParseMemory(w.Memory); err != nil {
			return fmt.Errorf("--mem-per-executor: %w", err)
		}
	}
	return nil
}

// field returns where an option of ours is kept, nil for one that is not ours.
func (w *Wish) field(option string) *string {
	switch option {
	case "--executors":
		return &w.Executors
	case "--mem-per-executor":
		return &w.Memory
	case "--cores-per-executor":
		return &w.Cores
	case "--function":
		return &w.Function
	case "--spin":
		return &w.Spin
	case "--image":
		return &w.Image
	}
	return nil
}

// Command is an sbatch command line, taken apart.
type Command struct {
	Options []string // for sbatch, without ours
	Script  string   // "" when sbatch reads the script from its standard input, or with --wrap
	Args    []string // of the script
	Wrapped bool     // --wrap stands for the script
	Export  string   // value of the last --export, "" when there is none
	Wish    Wish
}

// Options of sbatch that take no argument, or one only with "=". All others take one.
var (
	longFlags = words("contiguous exclusive get-user-env help hold ignore-pbs nice no-kill no-requeue overcommit oversubscribe share " +
		"parsable propagate quiet reboot requeue spread-job stepmgr test-only usage use-min-nodes verbose version wait resv-ports")
	shortFlags = "hHkOQsvVW"
)

func words(s string) map[string]bool {
	set := map[string]bool{}
	for w := range strings.FieldsSeq(s) {
		set[w] = true
	}
	return set
}

// Parse takes apart what follows "gleaner sbatch".
func Parse(args []string) (*Command, error) {
	c := &Command{}
	for len(args) > 0 {
		arg := args[0]
		switch {
		case arg == "--":
			c.Options, args = append(c.Options, arg), args[1:]
			c.script(args)
			return c, nil
		case arg == ":" || strings.HasPrefix(arg, "-") && arg != "-":
			n, err := c.option(args)
			if err != nil {
				return nil, err
			}
			args = args[n:]
		default:
			c.script(args)
			return c, nil
		}
	}
	return c, nil
}

func (c *Command) script(args []string) {
	if len(args) > 0 && !c.Wrapped {
		c.Script, c.Args = args[0], args[1:]
	} else {
		c.Args = args
	}
}

// option takes one option and returns how many arguments it took.
func (c *Command) option(args []string) (int, error) {
	name, value, joined := strings.Cut(args[0], "=")
	n := 1
	if !joined && takesArgument(args[0]) && len(args) > 1 {
		value, n = args[1], 2
	}
	if ours := c.Wish.field(name); ours != nil {
		if value == "" {
			return 0, fmt.Errorf("%s needs a value", name)
		}
		*ours = value
		return n, nil
	}
	switch name {
	case "--wrap":
		c.Wrapped = true
	case "--export":
		c.Export = value
	}
	c.Options = append(c.Options, args[:n]...)
	return n, nil
}

// takesArgument says whether the next argument belongs to this option.
func takesArgument(option string) bool {
	if option == ":" {
		return false
	}
	if long, ok := strings.CutPrefix(option, "--"); ok {
		return !longFlags[long]
	}
	letters := option[1:]
	for i := range len(letters) {
		if !strings.Contains(shortFlags, letters[i:i+1]) {
			return i == len(letters)-1 // what follows the letter is its argument
		}
		if letters[i] == 'k' {
			return false // takes the rest of the word, if there is one
		}
	}
	return false
}

// Directives are what the comment lines of a script say.
type Directives struct {
	Wish   Wish
	Export string // of the last #SBATCH --export
}

// ReadDirectives reads #GLEANER lines as sbatch reads #SBATCH lines: up to the first line that is neither empty nor a comment.
func ReadDirectives(script []byte) (Directives, error) {
	var d Directives
	scanner := bufio.NewScanner(bytes.NewReader(script))
	scanner.Buffer(nil, 16<<20)
	for line := 1; scanner.Scan(); line++ {
		text := strings.TrimSpace(scanner.Text())
		if text != "" && !strings.HasPrefix(text, "#") {
			break
		}
		if err := d.line(text); err != nil {
			return d, fmt.Errorf("line %d: %w", line, err)
		}
	}
	return d, scanner.Err()
}

func (d *Directives) line(text string) error {
	keyword, rest, _ := strings.Cut(strings.ReplaceAll(text, "\t", " "), " ")
	if keyword != "#GLEANER" && keyword != "#SBATCH" {
		return nil
	}
	args, err := shlex.Split(rest)
	if err != nil {
		if keyword == "#SBATCH" {
			return nil // sbatch has its own opinion of it
		}
		return fmt.Errorf("%s: %w", text, err)
	}
	c, err := Parse(args)
	if keyword == "#SBATCH" {
		if err == nil && c.Export != "" {
			d.Export = c.Export
		}
		return nil
	}
	if err != nil {
		return err
	}
	if len(c.Options) > 0 || c.Script != "" {
		return fmt.Errorf("%s: #GLEANER knows --executors, --mem-per-executor, --cores-per-executor, --function and --spin", text)
	}
	if err := c.Wish.Check(); err != nil {
		return err
	}
	d.Wish = c.Wish.Or(d.Wish)
	return nil
}

// Call returns sbatch's arguments. sbatch hands its environment to the job unless --export says otherwise; then the variables of
// wish, and those by which gleaner finds its broker, are added to what --export lists. defaults is $SBATCH_EXPORT.
func (c *Command) Call(d Directives, wish Wish, keep []string, defaults string) []string {
	export := c.Export
	for _, other := range []string{defaults, d.Export} { // sbatch: the environment wins over the script, the command line over both
		if export == "" {
			export = other
		}
	}
	args := append([]string(nil), c.Options...)
	if !exportsAll(export) {
		list := strings.Split(export, ",")
		if len(list) == 1 && (strings.EqualFold(list[0], "NONE") || strings.EqualFold(list[0], "NIL")) {
			list = nil
		}
		list = append(list, wish.Environ()...)
		extra := "--export=" + strings.Join(append(list, keep...), ",")
		if n := len(args); n > 0 && args[n-1] == "--" {
			args = append(args[:n-1], extra, "--")
		} else {
			args = append(args, extra)
		}
	}
	if c.Script != "" {
		args = append(args, c.Script)
	}
	return append(args, c.Args...)
}

func exportsAll(export string) bool {
	if export == "" {
		return true
	}
	for name := range strings.SplitSeq(export, ",") {
		if strings.EqualFold(name, "ALL") {
			return true
		}
	}
	return false
}
