# Reference values of R pROC for tests/test_metrics.py: 240 random data sets with ties, tiny classes and AUC 0, 0.5 and 1.
# Usage: Rscript proc_reference.R OUTPUT.csv     (Debian: r-base-core r-cran-proc)
suppressPackageStartupMessages(library(pROC))
output <- commandArgs(trailingOnly = TRUE)[1]
set.seed(2019)

# kind decides what the two predictors look like; digits decides how many ties there are
draw <- function(kind, target, digits) {
  n <- length(target)
  shared <- rnorm(n)
  score <- function(effect) pnorm((effect * target + shared + rnorm(n)) / 2)
  pair <- switch(kind,
    ordinary = list(score(1.2), score(0.8)),
    weak     = list(score(0.1), score(0.0)),
    perfect  = list(ifelse(target == 1, 0.6, 0.1) + 0.3 * runif(n), ifelse(target == 1, 0.7, 0.2) + 0.2 * runif(n)),
    worst    = list(ifelse(target == 1, 0.1, 0.6) + 0.3 * runif(n), score(1.0)),
    one_best = list(ifelse(target == 1, 0.6, 0.1) + 0.3 * runif(n), score(1.0)),
    constant = list(rep(0.5, n), score(1.0)),
    equal    = { a <- score(1.0); list(a, a) }
  )
  lapply(pair, function(values) round(values, digits))
}

kinds <- c("ordinary", "ordinary", "weak", "perfect", "worst", "one_best", "constant", "equal")
one_row <- function(index) {
  kind <- kinds[(index - 1) %% length(kinds) + 1]
  digits <- c(1, 2, 4)[(index - 1) %/% length(kinds) %% 3 + 1]
  n_positives <- sample(c(2, 3, 5, 12, 30), 1)
  n_negatives <- sample(c(2, 4, 8, 25, 60), 1)
  target <- sample(rep(c(1, 0), c(n_positives, n_negatives)))
  pair <- draw(kind, target, digits)
  curves <- lapply(pair, function(values) roc(target, values, levels = c(0, 1), direction = "<", quiet = TRUE))
  test <- suppressWarnings(roc.test(curves[[1]], curves[[2]], paired = TRUE, method = "delong"))
  number <- function(value) sprintf("%.17g", value)
  data.frame(
    set = index, kind = kind,
    target = paste(target, collapse = " "),
    probability_a = paste(pair[[1]], collapse = " "), probability_b = paste(pair[[2]], collapse = " "),
    auc_a = number(as.numeric(curves[[1]]$auc)), auc_b = number(as.numeric(curves[[2]]$auc)),
    variance_a = number(suppressWarnings(var(curves[[1]], method = "delong"))),
    variance_b = number(suppressWarnings(var(curves[[2]], method = "delong"))),
    covariance = number(suppressWarnings(cov(curves[[1]], curves[[2]], method = "delong"))),
    p = number(test$p.value)
  )
}
write.csv(do.call(rbind, lapply(1:240, one_row)), output, row.names = FALSE, quote = FALSE, na = "")
