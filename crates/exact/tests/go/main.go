// Compresses standard input to standard output with compress/gzip. For the tests of fresh streams.
//
// usage: main LEVEL [ROUNDS]: with ROUNDS, compresses so many times to nowhere, and prints the best MB/s.
package main

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"
)

func compress(plain []byte, level int, out io.Writer) {
	w, err := gzip.NewWriterLevel(out, level)
	if err != nil {
		panic(err)
	}
	// As io.Copy cuts it.
	if _, err := io.CopyBuffer(w, struct{ io.Reader }{bytes.NewReader(plain)}, make([]byte, 32768)); err != nil {
		panic(err)
	}
	if err := w.Close(); err != nil {
		panic(err)
	}
}

func main() {
	level, err := strconv.Atoi(os.Args[1])
	if err != nil {
		panic(err)
	}
	plain, err := io.ReadAll(os.Stdin)
	if err != nil {
		panic(err)
	}
	if len(os.Args) == 2 {
		compress(plain, level, os.Stdout)
		return
	}
	rounds, err := strconv.Atoi(os.Args[2])
	if err != nil {
		panic(err)
	}
	best := 0.0
	for range rounds {
		start := time.Now()
		compress(plain, level, io.Discard)
		best = max(best, float64(len(plain))/1e6/time.Since(start).Seconds())
	}
	fmt.Printf("%.1f\n", best)
}
