// The linear algebra of the explorables. A matrix is an array of rows.
(function () {
  "use strict";
  const EPS = Number.EPSILON;
  const SINGULAR = 1e-10; // of the smallest pivot relative to the largest

  const rowsOf = (a, rows) => rows.map((i) => a[i]);
  const columnsOf = (a, cols) => a.map((row) => cols.map((j) => row[j]));
  const transpose = (a) => a[0].map((_, j) => a.map((row) => row[j]));
  const largest = (a) => Math.max(...a.map((row) => Math.max(...row.map(Math.abs))));
  const norm = (a) => Math.sqrt(a.reduce((s, row) => s + row.reduce((t, x) => t + x * x, 0), 0));
  const subtract = (a, b) => a.map((row, i) => row.map((x, j) => x - b[i][j]));
  const multiply = (a, b) => {
    const c = transpose(b);
    return a.map((row) => c.map((col) => row.reduce((s, x, k) => s + x * col[k], 0)));
  };

  // Gaussian elimination with partial pivoting of [A | B], and the pivots with their sign.
  const eliminate = (a, b) => {
    const n = a.length;
    const work = a.map((row, i) => [...row, ...(b ? b[i] : [])]);
    let sign = 1;
    for (let k = 0; k < n; k++) {
      let best = k;
      for (let i = k + 1; i < n; i++) if (Math.abs(work[i][k]) > Math.abs(work[best][k])) best = i;
      if (best !== k) { [work[k], work[best]] = [work[best], work[k]]; sign = -sign; }
      if (work[k][k] === 0) continue;
      for (let i = k + 1; i < n; i++) {
        const factor = work[i][k] / work[k][k];
        for (let j = k; j < work[i].length; j++) work[i][j] -= factor * work[k][j];
      }
    }
    return { work, sign, pivots: work.map((row, k) => row[k]) };
  };

  const determinant = (a) => {
    const { sign, pivots } = eliminate(a);
    return pivots.reduce((product, x) => product * x, sign);
  };

  const isSingular = (a) => {
    const sizes = eliminate(a).pivots.map(Math.abs);
    return !(Math.min(...sizes) > SINGULAR * Math.max(...sizes));
  };

  // X of A X = B, for an invertible A.
  const solve = (a, b) => {
    const n = a.length, { work } = eliminate(a, b);
    for (let k = n - 1; k >= 0; k--) {
      for (let j = n; j < work[k].length; j++) {
        let x = work[k][j];
        for (let l = k + 1; l < n; l++) x -= work[k][l] * work[l][j];
        work[k][j] = x / work[k][k];
      }
    }
    return work.map((row) => row.slice(n));
  };

  // The cross approximation C P^-1 R.
  const cross = (a, rows, cols) => {
    const middle = columnsOf(rowsOf(a, rows), cols);
    return multiply(columnsOf(a, cols), solve(middle, rowsOf(a, rows)));
  };

  // B = M M[S]^-1 of a tall matrix: how an exchange of a row changes the volume of its rows S.
  const coefficients = (tall, rows) =>
    transpose(solve(transpose(rowsOf(tall, rows)), transpose(tall)));

  // The exchange of one row or one column that increases the volume most:
  // pivot number `place` of a side moves to the index `to`, and the volume grows by `factor`.
  const exchange = (a, rows, cols) => {
    let best = { side: "row", place: 0, to: rows[0], factor: 0 };
    const sides = [["row", columnsOf(a, cols), rows], ["column", transpose(rowsOf(a, rows)), cols]];
    for (const [side, tall, kept] of sides) {
      coefficients(tall, kept).forEach((row, to) => row.forEach((x, place) => {
        if (!kept.includes(to) && Math.abs(x) > best.factor)
          best = { side, place, to, factor: Math.abs(x) };
      }));
    }
    return best;
  };

  // Rows and columns by Gaussian elimination with complete pivoting; fewer than `rank` if the
  // matrix has a lower rank.
  const eliminatePivots = (a, rank) => {
    let rest = a;
    const rows = [], cols = [], least = SINGULAR * largest(a);
    while (rows.length < rank) {
      let i = 0, j = 0;
      rest.forEach((row, y) => row.forEach((x, z) => {
        if (Math.abs(x) > Math.abs(rest[i][j])) [i, j] = [y, z];
      }));
      const pivot = rest[i][j];
      if (!(Math.abs(pivot) > least)) break;
      rows.push(i);
      cols.push(j);
      const [row, col] = [rest[i], rest.map((r) => r[j])];
      rest = rest.map((r, y) => r.map((x, z) => x - (col[y] * row[z]) / pivot));
    }
    return { rows, cols };
  };

  // Singular values, largest first: one-sided Jacobi, which rotates pairs of rows until all are
  // orthogonal.
  const singularValues = (a) => {
    const rows = (a.length <= a[0].length ? a : transpose(a)).map((row) => [...row]);
    const dot = (x, y) => x.reduce((s, v, k) => s + v * y[k], 0);
    for (let sweep = 0, off = 1; sweep < 40 && off > EPS; sweep++) {
      off = 0;
      for (let i = 0; i < rows.length; i++) {
        for (let j = i + 1; j < rows.length; j++) {
          const [x, y] = [rows[i], rows[j]];
          const [p, q, c] = [dot(x, x), dot(y, y), dot(x, y)];
          if (Math.abs(c) <= EPS * Math.sqrt(p * q)) continue;
          off = Math.max(off, Math.abs(c) / Math.sqrt(p * q));
          const half = (q - p) / (2 * c);
          const tangent = (half >= 0 ? 1 : -1) / (Math.abs(half) + Math.hypot(half, 1));
          const cosine = 1 / Math.hypot(tangent, 1), sine = tangent * cosine;
          rows[i] = x.map((v, k) => cosine * v - sine * y[k]);
          rows[j] = x.map((v, k) => sine * v + cosine * y[k]);
        }
      }
    }
    return rows.map((row) => Math.sqrt(dot(row, row))).sort((x, y) => y - x);
  };

  // 1 / (high - low) of two positive eigenvalues, bounded as by `cpic.linalg.inverse_gap`.
  const LIMIT = Math.sqrt(Number.MAX_VALUE);
  const series = (high, low, terms) => {
    const apart = (high - low) / high;
    const total = -Math.expm1(terms * Math.log1p(-Math.min(apart, 1 - EPS)));
    return (apart === 0 ? terms : total / apart) / high;
  };
  const inverseGap = {
    original: (high, low) => 1 / Math.max(high - low, 1 / LIMIT),
    trunc: (high, low) => 1 / Math.max(high - low, high / 1e10),
    taylor: (high, low) => series(high, low, 101),
    power: (high, low) => series(high, low, 20),
    pade: (high, low) => 1 / Math.max((high - low) / high, EPS ** 0.75) / high,
  };

  // (high^p - low^p) / (high - low) without cancellation: the exact factor of the gradient.
  const dividedDifference = (high, low, power) => {
    const apart = (high - low) / high;
    if (apart === 0) return power * high ** (power - 1);
    const log = apart < 0.5 ? Math.log1p(-apart) : Math.log(low / high);
    return (high ** (power - 1) * -Math.expm1(power * log)) / apart;
  };

  globalThis.cpicMath = {
    rowsOf, columnsOf, transpose, largest, norm, subtract, multiply, determinant, isSingular, solve,
    cross, coefficients, exchange, eliminatePivots, singularValues, inverseGap, dividedDifference,
  };
})();
