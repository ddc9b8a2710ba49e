// Compresses standard input to standard output, with the compress/gzip of the Go that builds it or that of Go 1.26:
// contrib/ci/streams puts its source where it is imported from.
//
// usage: main 1.27|1.26 LEVEL
package main

import (
	"compress/gzip"
	"io"
	"os"
	"strconv"

	old "go126/gzip"
)

func writer(version string, level int) (io.WriteCloser, error) {
	if version == "1.26" {
		return old.NewWriterLevel(os.Stdout, level)
	}
	return gzip.NewWriterLevel(os.Stdout, level)
}

func main() {
	level, err := strconv.Atoi(os.Args[2])
	if err != nil {
		panic(err)
	}
	w, err := writer(os.Args[1], level)
	if err != nil {
		panic(err)
	}
	// As io.Copy cuts it.
	if _, err := io.CopyBuffer(w, struct{ io.Reader }{os.Stdin}, make([]byte, 32768)); err != nil {
		panic(err)
	}
	if err := w.Close(); err != nil {
		panic(err)
	}
}
