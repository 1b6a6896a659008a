"""Curvature operators: products with a Hessian, Gauss-Newton or Fisher matrix."""
