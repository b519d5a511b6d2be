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
	var documented []string
	for name := range documentedMetrics(t) {
		if strings.HasPrefix(name, "steelyard_") && !histogramSeries.MatchString(name) {
			documented = append(documented, name)
		}
	}
	slices.Sort(documented)
	if diff := cmp.Diff(codeMetrics(t), documented); diff != "" {
		t.Errorf("metrics (-the code +docs/metrics.md):\n%s", diff)
	}
}

var histogramSeries = regexp.MustCompile(`_seconds_(bucket|sum|count)$`)

// codeMetrics finds the metrics in the source: where a name stands beside its help text, in the arguments of a call or in the fields
// Name and Help, in files that import Prometheus' client. A name without "steelyard_" follows the file's constant with that prefix.
func codeMetrics(t *testing.T) []string {
	t.Helper()
	found := map[string]bool{}
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
			maps.Copy(found, metricsOf(file))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return slices.Sorted(maps.Keys(found))
}

func metricsOf(file *ast.File) map[string]bool {
	found := map[string]bool{}
	constants := map[string]string{}
	prefix := ""
	note := func(name, help ast.Expr) {
		n, h := value(name, constants), value(help, constants)
		if !strings.Contains(h, " ") || !regexp.MustCompile(`^[a-z][a-z0-9_]*$`).MatchString(n) {
			return
		}
		if !strings.HasPrefix(n, "steelyard_") {
			n = prefix + n
		}
		found[n] = true
	}
	ast.Inspect(file, func(node ast.Node) bool {
		switch n := node.(type) {
		case *ast.ValueSpec:
			if len(n.Names) == 1 && len(n.Values) == 1 {
				v := value(n.Values[0], constants)
				constants[n.Names[0].Name] = v
				if strings.HasPrefix(v, "steelyard_") && strings.HasSuffix(v, "_") {
					prefix = v
				}
			}
		case *ast.CallExpr:
			if len(n.Args) >= 2 {
				note(n.Args[0], n.Args[1])
			}
		case *ast.CompositeLit:
			fields := map[string]ast.Expr{}
			for _, element := range n.Elts {
				if field, ok := element.(*ast.KeyValueExpr); ok {
					if key, ok := field.Key.(*ast.Ident); ok {
						fields[key.Name] = field.Value
					}
				}
			}
			if fields["Name"] != nil && fields["Help"] != nil {
				note(fields["Name"], fields["Help"])
			}
		}
		return true
	})
	return found
}

// value is that of a constant text, or "".
func value(expr ast.Expr, constants map[string]string) string {
	switch e := expr.(type) {
	case *ast.BasicLit:
		text, err := strconv.Unquote(e.Value)
		if err == nil && e.Kind == token.STRING {
			return text
		}
	case *ast.Ident:
		return constants[e.Name]
	case *ast.BinaryExpr:
		if x, y := value(e.X, constants), value(e.Y, constants); x != "" && y != "" {
			return x + y
		}
	}
	return ""
}
