package main

import (
	"bytes"
	"fmt"
	"image"
	"image/jpeg"
	"math"
	"os"
	"path/filepath"
)

const (
	side = 200 // what a thumbnail fits into
	// tolerance is the mean difference per colour of 0 to 255 that two decoders and JPEG's loss may make.
	tolerance = 6.0
)

// judgeAll looks at the thumbnails of every album: the first by its content, the others must be the same bytes.
func judgeAll(photographs, thumbnails string, albums int, s *Summary) (bad []error, err error) {
	inputs, err := filepath.Glob(filepath.Join(photographs, "*.jpg"))
	if err == nil && len(inputs) == 0 {
		return nil, fmt.Errorf("photographs in %s: none found", photographs)
	}
	if err != nil {
		return nil, err
	}
	digits := len(fmt.Sprint(albums))
	for _, input := range inputs {
		var first []byte
		for album := 1; album <= albums; album++ {
			s.Tasks++
			path := filepath.Join(thumbnails, fmt.Sprintf("%0*d-%s", digits, album, filepath.Base(input)))
			data, err := os.ReadFile(path)
			switch {
			case err != nil:
			case first == nil:
				if err = judge(input, data); err == nil {
					first = data
				}
			case !bytes.Equal(first, data):
				err = fmt.Errorf("thumbnail %s is not the same as that of album 1", path)
			}
			if err != nil {
				s.Failed++
				bad = append(bad, err)
				continue
			}
			s.OK++
		}
	}
	return bad, nil
}

// judge compares a thumbnail with its photograph, shrunk by averaging.
func judge(photograph string, thumbnail []byte) error {
	name := filepath.Base(photograph)
	f, err := os.Open(photograph)
	if err != nil {
		return err
	}
	defer f.Close()
	large, err := jpeg.Decode(f)
	if err != nil {
		return fmt.Errorf("photograph %s: %w", name, err)
	}
	small, err := jpeg.Decode(bytes.NewReader(thumbnail))
	if err != nil {
		return fmt.Errorf("thumbnail of %s: %w", name, err)
	}
	from, to := large.Bounds().Size(), small.Bounds().Size()
	if want := fit(from); to != want {
		return fmt.Errorf("thumbnail of %s is %v, want %v", name, to, want)
	}
	if d := difference(average(large, to), small); d > tolerance {
		return fmt.Errorf("thumbnail of %s differs from it by %.1f of 255", name, d)
	}
	return nil
}

// fit is the largest size with the same proportions that fits, and never larger than the photograph.
func fit(from image.Point) image.Point {
	by := min(1, side/float64(from.X), side/float64(from.Y))
	scaled := func(n int) int { return max(1, int(math.Floor(float64(n)*by+0.5))) }
	return image.Pt(scaled(from.X), scaled(from.Y))
}

// average shrinks an image: each pixel of it counts for those of the result under which it lies, by the part that lies there.
func average(img image.Image, to image.Point) [][3]float64 {
	b := img.Bounds()
	across, down := overlaps(b.Dx(), to.X), overlaps(b.Dy(), to.Y)
	sum := make([][3]float64, to.X*to.Y)
	for y := range b.Dy() {
		for x := range b.Dx() {
			c := colours(img, b.Min.X+x, b.Min.Y+y)
			for _, v := range down[y] {
				for _, h := range across[x] {
					for k := range c {
						sum[v.at*to.X+h.at][k] += c[k] * v.part * h.part
					}
				}
			}
		}
	}
	return sum
}

type overlap struct {
	at   int
	part float64 // of the result's pixel
}

// overlaps says for each of n pixels which of m wider ones, or of as many, it lies under.
func overlaps(n, m int) [][]overlap {
	all := make([][]overlap, n)
	for i := range n {
		for at := i * m / n; at < m && at*n < (i+1)*m; at++ {
			common := min((i+1)*m, (at+1)*n) - max(i*m, at*n)
			all[i] = append(all[i], overlap{at, float64(common) / float64(n)})
		}
	}
	return all
}

func difference(want [][3]float64, got image.Image) float64 {
	b := got.Bounds()
	var sum float64
	for y := range b.Dy() {
		for x := range b.Dx() {
			c := colours(got, b.Min.X+x, b.Min.Y+y)
			for k := range c {
				sum += math.Abs(c[k] - want[y*b.Dx()+x][k])
			}
		}
	}
	return sum / float64(3*len(want))
}

func colours(img image.Image, x, y int) [3]float64 {
	if ycc, ok := img.(*image.YCbCr); ok { // without an interface value for each pixel
		r, g, b, _ := ycc.YCbCrAt(x, y).RGBA()
		return [3]float64{float64(r >> 8), float64(g >> 8), float64(b >> 8)}
	}
	r, g, b, _ := img.At(x, y).RGBA()
	return [3]float64{float64(r >> 8), float64(g >> 8), float64(b >> 8)}
}
