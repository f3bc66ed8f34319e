package main

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/gleaner-hpc/gleaner/client"
	"github.com/gleaner-hpc/gleaner/client/sbatch"
	"github.com/gleaner-hpc/gleaner/config"
)

// leaseFlags are the options of every command that acquires a lease.
type leaseFlags struct {
	executors int
	cores     int
	gpus      int
	memory    memory
	buffer    memory
	timeout   duration
	length    duration
	spin      spin
	ttl       duration
	retries   int
	account   string
	binds     binds
	network   bool
	image     string
}

// memory and duration are flags in Slurm's units.
type (
	memory   uint64
	duration time.Duration
	spin     time.Duration // a polling budget: always, never or a time
)

func (m *memory) String() string { return config.FormatMemory(uint64(*m)) }
func (*memory) Type() string     { return "size" }
func (m *memory) Set(s string) error {
	bytes, err := config.ParseMemory(s)
	*m = memory(bytes)
	return err
}

func (d *duration) String() string { return time.Duration(*d).String() }
func (*duration) Type() string     { return "time" }
func (d *duration) Set(s string) error {
	parsed, err := config.ParseDuration(s)
	*d = duration(parsed)
	return err
}

func (s *spin) String() string { return client.FormatSpin(time.Duration(*s)) }
func (*spin) Type() string     { return "time|always|never" }
func (s *spin) Set(text string) error {
	parsed, err := client.ParseSpin(text)
	*s = spin(parsed)
	return err
}

const imageHelp = "run in an image: a name of the nodes' Podman, a reference to pull, or the path of an OCI archive or a tarball that the nodes see; otherwise $GLEANER_IMAGE"

const spinHelp = "how long both sides poll for a call or a result before they sleep; otherwise 50us, or $GLEANER_SPIN"

// add declares the flags. Defaults come from the environment that run and sbatch make.
func (f *leaseFlags) add(flags *pflag.FlagSet, getenv func(string) string) {
	number := func(name string, otherwise int) int {
		if n, err := strconv.Atoi(getenv(name)); err == nil && n > 0 {
			return n
		}
		return otherwise
	}
	f.memory, f.buffer = 256<<20, 1<<20
	_ = f.memory.Set(orDefault(getenv(sbatch.EnvMemory), "256M"))
	flags.IntVar(&f.executors, "executors", number(sbatch.EnvExecutors, 0), "executors at the same time; 0: as many as there are tasks, at most 8")
	flags.IntVar(&f.cores, "cores-per-executor", number(sbatch.EnvCores, 1), "cores of each executor")
	flags.Var(&f.memory, "mem-per-executor", "memory of each executor, in Slurm's units (a bare number is MiB)")
	flags.IntVar(&f.gpus, "gpus-per-executor", 0, "GPUs of each executor")
	flags.Var(&f.buffer, "buffer", "largest result; inputs raise it by themselves; at most a quarter of the executor's memory")
	flags.Var(&f.timeout, "timeout", "longest run of the function on one input, in Slurm's forms or Go's; 0: none")
	flags.Var(&f.length, "length", "about how long one input takes: a site's policy may wait for a node that stays free for as long; 0: not known")
	_ = f.spin.Set(getenv(sbatch.EnvSpin)) // what makes no sense there is nobody's wish
	flags.Var(&f.spin, "spin", spinHelp)
	flags.IntVar(&f.retries, "retries", 0, "further runs of a task whose function failed (evicted ones always run again)")
	flags.Var(&f.ttl, "ttl", "how long the lease outlives this command if it dies; 0: the broker's default")
	flags.Var(&f.binds, "bind", "SRC[:DST][:rw]: show the function this folder or file of yours, read-only unless rw; where nodes allow it (repeatable)")
	flags.BoolVar(&f.network, "network", false, "let the function open sockets, where nodes allow it")
	flags.StringVar(&f.image, "image", getenv(sbatch.EnvImage), imageHelp)
	flags.StringVar(&f.account, "account", "", "account for the report; otherwise the job's")
}

func orDefault(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// request makes the lease request for a number of tasks whose largest input is given in bytes.
func (f *leaseFlags) request(function *client.Function, tasks int, largest int64, getenv func(string) string) (client.Request, error) {
	if f.executors < 0 || f.cores < 1 || f.gpus < 0 || f.retries < 0 {
		return client.Request{}, usage("--executors, --cores-per-executor, --gpus-per-executor and --retries take positive numbers")
	}
	executors := f.executors
	if executors == 0 {
		executors = 8
	}
	job, err := slurmJob(getenv)
	if err != nil {
		return client.Request{}, err
	}
	buffer, err := f.room(largest)
	if err != nil {
		return client.Request{}, err
	}
	return client.Request{
		Function: function, Executors: max(1, min(executors, tasks)), Cores: f.cores, Memory: uint64(f.memory), GPUs: f.gpus,
		TTL: time.Duration(f.ttl), Length: time.Duration(f.length), Job: job, Account: orDefault(f.account, getenv("SLURM_JOB_ACCOUNT")),
		Buffer: buffer, Binds: f.binds, Network: f.network, Image: imageName(f.image), Tasks: client.TaskOptions{Spin: time.Duration(f.spin), Timeout: time.Duration(f.timeout), Retries: f.retries},
	}, nil
}

// imageName makes the path of an archive absolute: what has the form of a path, or is a file here with the name of an archive.
func imageName(image string) string {
	path := strings.HasPrefix(image, "./") || strings.HasPrefix(image, "../")
	for _, suffix := range []string{".tar", ".tar.gz", ".tgz"} {
		if strings.HasSuffix(image, suffix) {
			if _, err := os.Stat(image); err == nil {
				path = true
			}
		}
	}
	if abs, err := filepath.Abs(image); path && err == nil {
		return abs
	}
	return image
}

// room is the size of each buffer: what was asked for, or the largest input if that is more.
func (f *leaseFlags) room(largest int64) (uint64, error) {
	const page = 64 << 10
	buffer := max(uint64(f.buffer), (uint64(largest)+page-1)/page*page)
	if buffer > uint64(f.memory)/4 {
		what := "--buffer"
		if buffer > uint64(f.buffer) {
			what = "the largest input"
		}
		const step = 64 << 20
		need := (4*buffer + step - 1) / step * step
		return 0, usage("%s takes %s, and a buffer at most a quarter of an executor's memory, which is %s; try --mem-per-executor %s",
			what, config.FormatMemory(buffer), config.FormatMemory(uint64(f.memory)), config.FormatMemory(need))
	}
	return buffer, nil
}

// slurmJob is the Slurm job that this command is part of, 0 for none: its lease ends with it.
func slurmJob(getenv func(string) string) (uint32, error) {
	text := getenv("SLURM_JOB_ID")
	if text == "" {
		return 0, nil
	}
	job, err := strconv.ParseUint(text, 10, 32)
	if err != nil {
		return 0, usage("SLURM_JOB_ID is %q: want a number", text)
	}
	return uint32(job), nil
}
