// The witness runs as the first process of a batch job and says whether anything harvested holds what the job was given. It shares
// no code with Gleaner and believes none of its words: it reads /proc, the cgroup file systems, Slurm's environment and scontrol.
//
//	witness [-parent NAME] [-out FOLDER] [-patience TIME] [SCRIPT]
//
// It prints one line of JSON, keeps it in FOLDER/JOB.STEP.NODE.json, and exits with 0 when the owner came first, else with 1. What it could not see it
// does not vouch for: that counts against, and the finding says untold when it is all there is. While slurmctld does not answer it asks again
// for as long as its patience lasts; what is harvested it has looked at before. With a SCRIPT it goes on as /bin/bash SCRIPT afterwards, so that
// a batch script may name it as its interpreter (#!) and have it as its very first process; flags then come from the environment.
//
//	WITNESS_PARENT  name of the cgroup above the harvested ones, "gleaner" by default
//	WITNESS_OUT     folder for the findings
package main

import (
	"cmp"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// Finding is the line of JSON.
type Finding struct {
	Schema     string    `json:"schema"` // "witness/1"
	Time       time.Time `json:"time"`
	TookMS     float64   `json:"took_ms"`
	Job        string    `json:"job"`
	Step       string    `json:"step"`
	Node       string    `json:"node"`
	Exclusive  bool      `json:"exclusive"`
	NodeCPUs   int       `json:"node_cpus"`
	JobCPUs    int       `json:"job_cpus"`
	Processes  int       `json:"processes_seen"` // on the whole machine
	Harvested  []Cgroup  `json:"harvested"`      // on this node
	Elsewhere  int       `json:"elsewhere"`      // harvested processes of the other nodes of this machine
	Violations []string  `json:"violations"`
	Untold     bool      `json:"untold"` // the violations are what could not be seen, nothing else
	OwnerFirst bool      `json:"owner_first"`
}

func main() {
	parent := flag.String("parent", cmp.Or(os.Getenv("WITNESS_PARENT"), "gleaner"), "cgroup above the harvested ones")
	out := flag.String("out", os.Getenv("WITNESS_OUT"), "folder for the findings")
	patience := flag.Duration("patience", 0, "how long to ask again while slurmctld does not answer, or a sandbox has no bounds")
	flag.Parse()

	start := time.Now()
	f := look(machine{root: "/", scontrol: patient(scontrol, *patience), patience: *patience}, *parent, job{get: os.Getenv})
	f.Schema, f.Time, f.TookMS = "witness/1", start.UTC(), float64(time.Since(start).Microseconds())/1000
	line, err := json.Marshal(f)
	if err == nil {
		fmt.Println(string(line))
		err = keep(*out, f, line)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "witness:", err)
		os.Exit(1)
	}
	if flag.NArg() > 0 {
		goOn(flag.Args())
	}
	if !f.OwnerFirst {
		os.Exit(1)
	}
}

// keep writes the line beside its final name first, so that no reader sees half of it.
func keep(folder string, f Finding, line []byte) error {
	if folder == "" {
		return nil
	}
	path := filepath.Join(folder, fmt.Sprintf("%s.%s.%s.json", f.Job, f.Step, f.Node))
	if err := os.WriteFile(path+".part", append(line, '\n'), 0o644); err != nil {
		return err
	}
	return os.Rename(path+".part", path)
}

func goOn(args []string) {
	err := syscall.Exec("/bin/bash", append([]string{"bash"}, args...), os.Environ())
	fmt.Fprintln(os.Stderr, "witness: run the script:", err)
	os.Exit(1)
}

// patient asks again while Slurm is not there.
func patient(ask func(...string) (string, error), patience time.Duration) func(...string) (string, error) {
	return func(args ...string) (string, error) {
		for deadline := time.Now().Add(patience); ; time.Sleep(200 * time.Millisecond) {
			out, err := ask(args...)
			if err == nil || time.Now().After(deadline) {
				return out, err
			}
		}
	}
}

func scontrol(args ...string) (string, error) {
	out, err := exec.Command("scontrol", args...).Output()
	return string(out), err
}
