// Lab starts and stops a real Kubernetes cluster in network namespaces of this machine.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/steelyard-lb/steelyard/e2e/fixture"
	"github.com/steelyard-lb/steelyard/e2e/lab/build"
	"github.com/steelyard-lb/steelyard/e2e/lab/cluster"
)

const usage = `usage: lab [-name NAME] COMMAND

  up [-nodes N]        start a lab; it runs until "down"
  install [NAME=VALUE...]  install Steelyard in it by its chart, from the checkout as it is now
  down                 stop it and remove what it left
  kubectl ARGS...      run kubectl in it
  exec HOST ARGS...    run a command on one of its hosts: control, router, remote, client, node-1, ...
  cut HOST             pull a host's cable
  mend HOST            plug it in again
  program NAME         print where a program that the lab was built with is: kubectl, helm, ...
`

func main() {
	cluster.Supervise()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		var inside exitStatus
		if errors.As(err, &inside) {
			os.Exit(int(inside)) // the command has said what is wrong
		}
		fmt.Fprintln(os.Stderr, "lab:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	flags := flag.NewFlagSet("lab", flag.ExitOnError)
	flags.Usage = func() { fmt.Fprint(os.Stderr, usage) }
	name := flags.String("name", "lab", "the lab's name")
	_ = flags.Parse(os.Args[1:]) // exits on error
	if flags.NArg() == 0 {
		flags.Usage()
		os.Exit(2)
	}
	command, args := flags.Arg(0), flags.Args()[1:]
	if command == "up" {
		return up(ctx, *name, args)
	}
	if command == "program" && len(args) == 1 {
		dir, err := build.Programs(ctx)
		fmt.Println(filepath.Join(dir, args[0]))
		return err
	}
	lab, err := cluster.Find(*name)
	switch {
	case command == "down" && err != nil:
		return cluster.Clean(*name)
	case err != nil:
		return fmt.Errorf("%w: start it with `make lab`", err)
	}
	switch command {
	case "down":
		return lab.Down()
	case "kubectl":
		return interactive(ctx, lab, cluster.Control, append([]string{lab.Program("kubectl"), "--kubeconfig", lab.Kubeconfig()}, args...)...)
	case "exec":
		if len(args) < 2 {
			return errors.New("exec needs a host and a command")
		}
		return interactive(ctx, lab, args[0], args[1:]...)
	case "install":
		return install(ctx, lab, args)
	case "cut", "mend":
		if len(args) != 1 {
			return fmt.Errorf("%s needs a host", command)
		}
		if command == "cut" {
			return lab.Cut(ctx, args[0])
		}
		return lab.Mend(ctx, args[0])
	}
	flags.Usage()
	os.Exit(2)
	return nil
}

func up(ctx context.Context, name string, args []string) error {
	flags := flag.NewFlagSet("up", flag.ExitOnError)
	nodes := flags.Int("nodes", 3, "how many nodes")
	_ = flags.Parse(args) // exits on error
	start := time.Now()
	lab, err := cluster.Up(ctx, cluster.Options{Name: name, Nodes: *nodes, Detached: true})
	if err != nil {
		return err
	}
	fmt.Printf("lab %s is up: %d nodes Ready after %.1f s\n", lab.Name, lab.Nodes, time.Since(start).Seconds())
	return nil
}

// install brings the images of the checkout to the nodes first: they may be newer than the lab.
func install(ctx context.Context, lab *cluster.Lab, values []string) error {
	if err := lab.LoadImages(ctx); err != nil {
		return err
	}
	c, err := fixture.New(lab)
	if err != nil {
		return err
	}
	if err := c.Install(ctx, values...); err != nil {
		return err
	}
	fmt.Println("Steelyard is installed")
	return nil
}

func interactive(ctx context.Context, lab *cluster.Lab, machine string, args ...string) error {
	cmd := lab.Host(machine).Command(ctx, args...)
	cmd.SysProcAttr.Setpgid = false
	cmd.Cancel = nil
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() > 0 {
		return exitStatus(exit.ExitCode())
	}
	return err
}

// exitStatus is that of a command that the user ran in the lab.
type exitStatus int

func (s exitStatus) Error() string { return fmt.Sprintf("exit status %d", int(s)) }
