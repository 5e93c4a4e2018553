package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"
)

func burn(ctx context.Context, args []string) error {
	fs := flag.NewFlagSet("burn", flag.ContinueOnError)
	cores := fs.Int("cores", 1, "number of busy loops")
	duration := fs.Duration("duration", 0, "end after this time, 0 for never")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if *duration > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, *duration)
		defer cancel()
	}
	for range *cores {
		go func() {
			for ctx.Err() == nil {
			}
		}()
	}
	<-ctx.Done()
	return nil
}

func write(_ context.Context, args []string) error {
	fs := flag.NewFlagSet("write", flag.ContinueOnError)
	sync := fs.Bool("sync", false, "fsync before returning")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if fs.NArg() < 1 {
		return errUsage
	}
	f, err := os.OpenFile(fs.Arg(0), os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(f, strings.Join(fs.Args()[1:], " "))
	if err == nil && *sync {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}

func cat(_ context.Context, args []string) error {
	if len(args) == 0 {
		return errUsage
	}
	for _, path := range args {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		_, err = io.Copy(os.Stdout, f)
		f.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

func sleep(ctx context.Context, args []string) error {
	if len(args) == 0 {
		<-ctx.Done()
		return nil
	}
	d, err := time.ParseDuration(args[0])
	if err != nil {
		return err
	}
	pause(ctx, d)
	return nil
}

func env(context.Context, []string) error {
	fmt.Printf("identity=%s uid=%d gid=%d\n", identity(), os.Getuid(), os.Getgid())
	vars := os.Environ()
	slices.Sort(vars)
	for _, v := range vars {
		fmt.Println(v)
	}
	return nil
}
