// Compresses standard input to standard output with klauspost's zstd. For the tests of fresh frames.
//
// usage: main CALLS LEVEL [ROUNDS]: CALLS is whole, image, or the flushes ("-" for none, or "8,100"); LEVEL 1 is
// fastest, 2 default. With ROUNDS, compresses so many times to nowhere, and prints the best MB/s.
package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"
)

func check(err error) {
	if err != nil {
		panic(err)
	}
}

func compress(plain []byte, calls string, level zstd.EncoderLevel, out io.Writer) {
	w, err := zstd.NewWriter(out, zstd.WithEncoderLevel(level), zstd.WithEncoderConcurrency(1))
	check(err)
	at := 0
	switch calls {
	case "whole":
		_, err = out.Write(w.EncodeAll(plain, nil))
		check(err)
		return
	case "image":
		at = min(8, len(plain))
		_, err = w.Write(plain[:at])
		check(err)
		_, err = w.ReadFrom(bytes.NewReader(plain[at:]))
		check(err)
		at = len(plain)
	case "-":
	default:
		for _, flush := range strings.Split(calls, ",") {
			to, err := strconv.Atoi(flush)
			check(err)
			to = min(to, len(plain))
			_, err = w.Write(plain[at:to])
			check(err)
			check(w.Flush())
			at = to
		}
	}
	_, err = w.Write(plain[at:])
	check(err)
	check(w.Close())
}

func main() {
	level := map[string]zstd.EncoderLevel{"1": zstd.SpeedFastest, "2": zstd.SpeedDefault}[os.Args[2]]
	plain, err := io.ReadAll(os.Stdin)
	check(err)
	if len(os.Args) == 3 {
		compress(plain, os.Args[1], level, os.Stdout)
		return
	}
	rounds, err := strconv.Atoi(os.Args[3])
	check(err)
	best := 0.0
	for range rounds {
		start := time.Now()
		compress(plain, os.Args[1], level, io.Discard)
		best = max(best, float64(len(plain))/1e6/time.Since(start).Seconds())
	}
	fmt.Printf("%.1f\n", best)
}
