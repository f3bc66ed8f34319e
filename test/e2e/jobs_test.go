package e2e

import (
	"fmt"
	"strconv"
	"strings"
)

// ways are all the ways in which a job comes and goes. docs/jobs.md tells the same in words.
var ways = []struct {
	name string
	run  func(x *trial)
}{
	{"sbatch", func(x *trial) {
		x.sbatch(x.look, "-n1", "-c3", "--mem=600").wait("COMPLETED")
		x.sees(1)
	}},
	{"srun", func(x *trial) {
		x.run("srun", append([]string{"-N2", "-n2", "-c3"}, strings.Fields(x.look)...)...)
		x.sees(2)
	}},
	{"salloc", func(x *trial) {
		x.run("salloc", append([]string{"-N2", "-n2", "-c3", "srun"}, strings.Fields(x.look)...)...)
		x.sees(2)
	}},
	{"salloc without a step", func(x *trial) {
		if !x.site.contain && x.site.gated() {
			x.Skip("without PrologFlags=Contain the gate is in the first step, and there is none")
		}
		// The command runs where salloc does; what is the job's is free all the same.
		node := x.nodes[0]
		x.run("salloc", append([]string{"-w", node, "-n1", "-c4", "env", "SLURMD_NODENAME=" + node}, strings.Fields(x.look)...)...)
		x.sees(1)
	}},
	{"steps", func(x *trial) {
		x.sbatch(strings.Join([]string{
			"srun --exact -n1 -c2 " + x.look + " &", "srun --exact -n1 -c1 " + x.look + " &", "wait", "srun -n1 --exclusive " + x.look,
		}, "\n"), "-n2", "-c3").wait("COMPLETED")
		x.sees(3)
	}},
	{"overlapping steps", func(x *trial) {
		x.sbatch("srun -n1 sleep 600 &\nsrun -n1 --overlap --mem=0 "+x.look+"\n", "-n1", "-c3")
		x.sees(1)
	}},
	{"array", func(x *trial) {
		x.sbatch(x.look, "--array=0-5", "-n1", "-c2", "--mem=300")
		x.sees(6)
	}},
	{"heterogeneous job", func(x *trial) {
		look := strings.Fields(x.look)
		args := append([]string{"-n1", "-c2"}, look...)
		x.run("srun", append(append(args, ":", "-n1", "-c3"), look...)...)
		x.sees(2)
	}},
	{"exclusive", func(x *trial) {
		x.sbatch("srun "+x.look, "-N2", "-n2", "--exclusive").wait("COMPLETED")
		x.sees(2)
	}},
	{"all memory", func(x *trial) {
		x.sbatch(x.look, "-n1", "-c1", "--mem=0").wait("COMPLETED")
		x.sees(1)
	}},
	{"GPU", func(x *trial) {
		x.sbatch(x.look, "-n1", "-c1", "--gres=gpu:1").wait("COMPLETED")
		x.sees(1)
	}},
	{"many at once", func(x *trial) {
		for range 8 {
			x.sbatch(x.look, "-n1", "-c2", "--mem=300")
		}
		x.sees(8)
	}},
	{"requeue", func(x *trial) {
		j := x.sbatch(x.look+"\nsleep 60", "--requeue", "-n1", "-c3")
		x.sees(1)
		x.run("scontrol", "requeue", strconv.Itoa(j.id))
		x.lent(full, x.nodes...) // it waits for two minutes now; then it is a job like another
	}},
	{"suspended and resumed", suspended},
	{"preempted by requeue", func(x *trial) {
		x.sbatch(x.look+"\nsleep 60", "-p", "scavenge", "--requeue", "-w", x.nodes[0], "-n1", "-c8", "--mem=200")
		x.sees(1)
		x.sbatch(x.look, "-p", "urgent", "-w", x.nodes[0], "-n1", "-c8", "--mem=200").wait("COMPLETED")
		x.sees(1)
	}},
	{"preempted by suspension", func(x *trial) {
		victim := x.sbatch(x.look+"\n"+x.until("look")+"\n"+x.look, "-p", "sleepy", "-w", x.nodes[0], "-n1", "-c8", "--mem=200")
		x.sees(1)
		x.sbatch(x.look, "-p", "urgent", "-w", x.nodes[0], "-n1", "-c8", "--mem=200").wait("COMPLETED")
		x.sees(1)
		victim.wait("RUNNING") // again
		x.signal("look")
		x.sees(1)
	}},
	{"shrunk", func(x *trial) {
		// The step on both nodes: Slurm 22.05 cannot end what is still starting on the node that goes, and drains it.
		j := x.sbatch(x.look+"\nsrun "+x.look+"\n"+x.until("look")+"\n"+x.look, "-N2", "-n2", "-c4")
		x.sees(3)
		x.update(fmt.Sprintf("JobId=%d", j.id), "NumNodes=1")
		x.lent(full, x.nodes[1])
		x.settled(x.nodes[0]) // four beside the job; none where the Prolog alone says what it holds, and slurmctld not in time
		x.signal("look")
		x.sees(1)
	}},
	{"grown", grown},
	{"reservation", func(x *trial) {
		x.run("scontrol", "create", "reservation", "ReservationName=ours", "Nodes="+x.nodes[0], "Users=root", "StartTime=now", "Duration=5", "Flags=IGNORE_JOBS")
		defer func() { _, _ = try(x.c, "scontrol", "delete", "ReservationName=ours") }()
		x.sbatch(x.look, "--reservation=ours", "-n1", "-c3").wait("COMPLETED")
		x.sees(1)
	}},
	{"node drained", func(x *trial) {
		node := x.nodes[0]
		j := x.sbatch(x.until("look")+"\nsrun "+x.look, "-w", node, "-n1", "-c3")
		j.wait("RUNNING")
		x.update("NodeName="+node, "State=DRAIN", "Reason=repair")
		x.lent(0, node)
		x.signal("look")
		x.sees(1)
		j.wait("COMPLETED")
		x.update("NodeName="+node, "State=RESUME")
	}},
	{"node down", func(x *trial) {
		node := x.nodes[0]
		j := x.sbatch("sleep 60", "-w", node, "-n1", "-c3", "--no-requeue")
		j.wait("RUNNING")
		x.update("NodeName="+node, "State=DOWN", "Reason=broken")
		j.wait("NODE_FAIL")
		_, _ = try(x.c, "scontrol", "update", "NodeName="+node, "State=RESUME") // slurmd may have said so itself
		x.sbatch(x.look, "-w", node, "-n1", "-c3").wait("COMPLETED")
		x.sees(1)
	}},
	{"node about to reboot", func(x *trial) {
		node := x.nodes[0]
		j := x.sbatch(x.look+"\n"+x.until("end"), "-w", node, "-n1", "-c3")
		x.sees(1)
		x.run("scontrol", "reboot", "ASAP", "nextstate=RESUME", "reason=kernel", node)
		x.lent(0, node) // before Slurm starts RebootProgram, which waits for the job alone
		x.run("scontrol", "cancel_reboot", node)
		x.signal("end")
		j.wait("COMPLETED")
		_, _ = try(x.c, "scontrol", "update", "NodeName="+node, "State=RESUME")
	}},
	{"slurmd restarted", func(x *trial) { restarted(x, "slurmd/"+x.nodes[0]) }},
	{"slurmctld restarted", func(x *trial) { restarted(x, "slurmctld") }},
	{"agent restarted", func(x *trial) { restarted(x, "agentd/"+x.nodes[0]) }},
	{"cancelled at once", func(x *trial) {
		for n := range 4 {
			j := x.sbatch(x.look, "-n1", "-c5", "-w", x.nodes[n%2])
			_, _ = try(x.c, "scancel", strconv.Itoa(j.id))
		}
	}},
	{"Prolog twice, and late", func(x *trial) {
		node := x.nodes[0]
		j := x.sbatch(x.look+"\n"+x.until("end"), "-w", node, "-n1", "-c3", "--mem=600")
		x.sees(1)
		before := len(harvested(x.c, node))
		x.hook(node, "prolog", j.id)
		if after := len(harvested(x.c, node)); x.site.gated() && after != before { // a blunt one clears the node again
			x.Errorf("a second Prolog made %d executors of %d", after, before)
		}
		x.signal("end")
		j.wait("COMPLETED")
	}},
	{"Epilog twice", func(x *trial) {
		node := x.nodes[0]
		j := x.sbatch(x.look, "-w", node, "-n1", "-c3")
		x.sees(1)
		j.wait("COMPLETED")
		x.hook(node, "epilog", j.id)
	}},
}

// suspended: Slurm gives a suspended job's cores to others and lets both run after resume. Gleaner lends them to nobody meanwhile.
func suspended(x *trial) {
	node := x.nodes[0]
	j := x.sbatch(x.look+"\n"+x.until("look")+"\n"+x.look, "-w", node, "-n1", "-c3", "--mem=600")
	x.sees(1)
	x.run("scontrol", "suspend", strconv.Itoa(j.id))
	if idle := field(x.run("scontrol", "show", "node", "-o", node), "CPUAlloc"); idle != "0" {
		x.Errorf("Slurm counts %s CPUs of the suspended job", idle)
	}
	x.sbatch(x.look, "-w", node, "-n1", "-c8", "--mem=200").wait("COMPLETED")
	x.sees(1)
	x.run("scontrol", "resume", strconv.Itoa(j.id))
	x.signal("look")
	x.sees(1)
	j.wait("COMPLETED")
}

// grown: a job takes over the node of another one that was submitted to expand it, and that has no step of its own.
func grown(x *trial) {
	if x.site.contain {
		x.Skip("with PrologFlags=Contain each job has an extern step, and Slurm merges no job with steps")
	}
	j := x.sbatch(x.until("look")+"\nunset SLURM_JOB_NODELIST SLURM_NODELIST SLURM_NNODES SLURM_JOB_NUM_NODES SLURM_NTASKS SLURM_NPROCS "+
		"SLURM_TASKS_PER_NODE SLURM_JOB_CPUS_PER_NODE SLURM_CPUS_PER_TASK\nsrun -N2 -n2 "+x.look, "-w", x.nodes[0], "-N1", "-n1", "-c3")
	j.wait("RUNNING")
	said := x.run("salloc", "--no-shell", "-w", x.nodes[1], "-N1", "-n1", "-c3", fmt.Sprintf("--dependency=expand:%d", j.id))
	more := ""
	for word := range strings.FieldsSeq(said) {
		if _, err := strconv.Atoi(word); err == nil {
			more = word
		}
	}
	x.update("JobId="+more, "NumNodes=0")
	_, _ = try(x.c, "scontrol", "update", fmt.Sprintf("JobId=%d", j.id), "NumNodes=ALL") // refused where no slurmdbd numbers the job anew; it has the node
	x.signal("look")
	x.sees(2) // scontrol does not tell what the job holds on its new node; nothing is harvested there
}

// restarted: a job that runs, its later steps and the next job are as if nothing had happened.
func restarted(x *trial, role string) {
	node := x.nodes[0]
	j := x.sbatch(x.look+"\n"+x.until("look")+"\nsrun "+x.look, "-w", node, "-n1", "-c3")
	x.sees(1)
	x.restart(role)
	x.lent(full, x.nodes[1])
	x.signal("look")
	x.sees(1)
	j.wait("COMPLETED")
	x.sbatch(x.look, "-w", node, "-n1", "-c3").wait("COMPLETED")
	x.sees(1)
}
