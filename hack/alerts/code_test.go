package alerts

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// What the programs export is what docs/metrics.md lists, neither more nor less.
func TestCodeAndDocumentationAgree(t *testing.T) {
	documented := map[string][]string{}
	for name, labels := range documentedMetrics(t) {
		if strings.HasPrefix(name, "steelyard_") && !regexp.MustCompile(`_seconds_(bucket|sum|count)$`).MatchString(name) {
			documented[name] = labels
		}
	}
	code := codeMetrics(t)
	for name, labels := range code {
		if labels == nil {
			code[name] = documented[name]
		}
	}
	if diff := cmp.Diff(code, documented); diff != "" {
		t.Errorf("metrics and their labels (-the code +docs/metrics.md):\n%s", diff)
	}
}

// codeMetrics finds the metrics in the source, and the labels of those that have them beside their name; the others have nil.
func codeMetrics(t *testing.T) map[string][]string {
	t.Helper()
	found := map[string][]string{}
	err := filepath.WalkDir("../../pkg", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		imports := func(spec *ast.ImportSpec) bool {
			return spec.Path.Value == `"github.com/prometheus/client_golang/prometheus"`
		}
		if slices.ContainsFunc(file.Imports, imports) {
			s := source{texts: map[string]string{}, lists: map[string]ast.Expr{}, metrics: map[string][]string{}}
			ast.Inspect(file, s.visit)
			maps.Copy(found, s.metrics)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// source is a file as far as it was read. A metric is where a name stands beside its help text, in the arguments of a call or in the
// fields Name and Help. A name without "steelyard_" follows the file's constant that begins so.
type source struct {
	prefix  string
	texts   map[string]string   // constants
	lists   map[string]ast.Expr // variables
	metrics map[string][]string // with their labels
}

var metricName = regexp.MustCompile(`^[a-z][a-z0-9_]*$`)

func (s *source) visit(node ast.Node) bool {
	switch n := node.(type) {
	case *ast.ValueSpec:
		if len(n.Names) == 1 && len(n.Values) == 1 {
			s.declare(n.Names[0].Name, n.Values[0])
		}
	case *ast.CallExpr:
		if len(n.Args) < 2 {
			return true
		}
		// NewDesc(name, help, labels, nil), and helpers like it.
		if name := s.named(n.Args[0], n.Args[1]); name != "" && s.metrics[name] == nil {
			s.metrics[name] = nil
			if len(n.Args) > 2 {
				s.metrics[name] = s.labels(n.Args[2])
			}
		}
		// NewCounterVec(options, labels); the options are visited later.
		if name := s.options(n.Args[0]); name != "" {
			s.metrics[name] = s.labels(n.Args[1])
		}
	case *ast.CompositeLit:
		if name := s.options(n); name != "" && s.metrics[name] == nil {
			s.metrics[name] = nil
		}
	}
	return true
}

func (s *source) declare(name string, value ast.Expr) {
	s.lists[name] = value
	s.texts[name] = s.text(value)
	if strings.HasPrefix(s.texts[name], "steelyard_") && strings.HasSuffix(s.texts[name], "_") {
		s.prefix = s.texts[name]
	}
}

// options gives the name of the metric whose options these are, or "".
func (s *source) options(expr ast.Expr) string {
	switch e := expr.(type) {
	case *ast.CallExpr:
		if len(e.Args) >= 2 {
			return s.named(e.Args[0], e.Args[1])
		}
	case *ast.CompositeLit:
		fields := map[string]ast.Expr{}
		for _, element := range e.Elts {
			if field, ok := element.(*ast.KeyValueExpr); ok {
				if key, ok := field.Key.(*ast.Ident); ok {
					fields[key.Name] = field.Value
				}
			}
		}
		return s.named(fields["Name"], fields["Help"])
	}
	return ""
}

func (s *source) named(name, help ast.Expr) string {
	n := s.text(name)
	if !metricName.MatchString(n) || !strings.Contains(s.text(help), " ") {
		return ""
	}
	if strings.HasPrefix(n, "steelyard_") {
		return n
	}
	return s.prefix + n
}

// labels gives a list of labels, or nil for what is none.
func (s *source) labels(expr ast.Expr) []string {
	switch e := expr.(type) {
	case *ast.CompositeLit:
		list := []string{}
		for _, element := range e.Elts {
			list = append(list, s.text(element))
		}
		return list
	case *ast.BasicLit:
		return []string{s.text(e)}
	case *ast.Ident:
		if e.Name == "nil" {
			return []string{}
		}
		if value, ok := s.lists[e.Name]; ok {
			return s.labels(value)
		}
	}
	return nil
}

// text is that of a constant, or "".
func (s *source) text(expr ast.Expr) string {
	switch e := expr.(type) {
	case *ast.BasicLit:
		text, err := strconv.Unquote(e.Value)
		if err == nil && e.Kind == token.STRING {
			return text
		}
	case *ast.Ident:
		return s.texts[e.Name]
	case *ast.BinaryExpr:
		if x, y := s.text(e.X), s.text(e.Y); x != "" && y != "" {
			return x + y
		}
	}
	return ""
}
