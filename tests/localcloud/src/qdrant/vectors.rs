//! Vectors, distances and scores, in `f32` as the real server computes them.

use super::reply::ApiError;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum Vector {
    Dense(Vec<f32>),
    Multi(Vec<Vec<f32>>),
    Sparse(Sparse),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Sparse {
    pub(super) indices: Vec<u32>,
    pub(super) values: Vec<f32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Distance {
    Cosine,
    Euclid,
    Dot,
    Manhattan,
}

impl Distance {
    /// Larger is nearer.
    fn similarity(self, a: &[f32], b: &[f32]) -> f32 {
        let pairs = a.iter().zip(b);
        match self {
            Self::Cosine | Self::Dot => pairs.map(|(a, b)| a * b).sum(),
            Self::Euclid => -pairs.map(|(a, b)| (a - b) * (a - b)).sum::<f32>(),
            Self::Manhattan => -pairs.map(|(a, b)| (a - b).abs()).sum::<f32>(),
        }
    }

    /// The score that is reported: a distance for the two that are distances.
    pub(super) fn score(self, similarity: f32) -> f32 {
        match self {
            Self::Cosine | Self::Dot => similarity,
            Self::Euclid => similarity.abs().sqrt(),
            Self::Manhattan => similarity.abs(),
        }
    }

    pub(super) fn passes(self, score: f32, threshold: f32) -> bool {
        match self {
            Self::Cosine | Self::Dot => score >= threshold,
            Self::Euclid | Self::Manhattan => score <= threshold,
        }
    }
}

/// What a named vector of a collection is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum VectorSpec {
    Dense { size: usize, distance: Distance, multi: bool, half: bool },
    Sparse { idf: bool },
}

impl VectorSpec {
    pub(super) fn distance(self) -> Distance {
        match self {
            Self::Dense { distance, .. } => distance,
            Self::Sparse { .. } => Distance::Dot,
        }
    }

    /// Checks a vector that comes in and brings it into the stored form: cosine vectors are normalised here, once.
    pub(super) fn prepare(self, vector: Vector) -> Result<Vector, ApiError> {
        match (self, vector) {
            (Self::Dense { size, distance, multi: false, half }, Vector::Dense(values)) => {
                check_size(size, values.len())?;
                Ok(Vector::Dense(stored(distance, half, values)))
            }
            (Self::Dense { size, distance, multi: true, half }, Vector::Multi(rows)) => {
                let rows = rows
                    .into_iter()
                    .map(|row| {
                        check_size(size, row.len())?;
                        Ok(stored(distance, half, row))
                    })
                    .collect::<Result<_, ApiError>>()?;
                Ok(Vector::Multi(rows))
            }
            // A single row is taken for a multivector of one.
            (Self::Dense { size, distance, multi: true, half }, Vector::Dense(values)) => {
                check_size(size, values.len())?;
                Ok(Vector::Multi(vec![stored(distance, half, values)]))
            }
            (Self::Sparse { .. }, Vector::Sparse(sparse)) => {
                if sparse.indices.len() != sparse.values.len() {
                    return Err(ApiError::validation(
                        "JSON body",
                        "sparse vector: must be the same length as indices",
                    ));
                }
                let mut pairs: Vec<(u32, f32)> = sparse.indices.into_iter().zip(sparse.values).collect();
                pairs.sort_by_key(|(index, _)| *index);
                let (indices, values) = pairs.into_iter().unzip();
                Ok(Vector::Sparse(Sparse { indices, values }))
            }
            (Self::Sparse { .. }, Vector::Dense(_) | Vector::Multi(_)) => {
                Err(ApiError::bad_input("Wrong usage of sparse vectors"))
            }
            (Self::Dense { multi: false, .. }, Vector::Multi(_)) => {
                Err(ApiError::bad_input("Wrong usage of multi vectors"))
            }
            (Self::Dense { .. }, Vector::Sparse(_)) => {
                Err(ApiError::bad_input("Conversion between sparse and regular vectors failed"))
            }
        }
    }
}

fn check_size(expected: usize, got: usize) -> Result<(), ApiError> {
    if expected == got {
        Ok(())
    } else {
        Err(ApiError::bad_input(format!("Vector dimension error: expected dim: {expected}, got {got}")))
    }
}

/// `datatype: float16` keeps 16 bits of every number, from the moment it comes in.
fn stored(distance: Distance, half: bool, values: Vec<f32>) -> Vec<f32> {
    let values = normalise(distance, values);
    if half { values.into_iter().map(|value| half::f16::from_f32(value).to_f32()).collect() } else { values }
}

/// Leaves zero vectors and vectors already of unit length untouched, so that a stored vector sent back is stored the same.
fn normalise(distance: Distance, mut values: Vec<f32>) -> Vec<f32> {
    if distance != Distance::Cosine {
        return values;
    }
    let length: f32 = values.iter().map(|value| value * value).sum();
    if length < f32::EPSILON || (length - 1.0).abs() <= 1.0e-6 {
        return values;
    }
    let length = length.sqrt();
    for value in &mut values {
        *value /= length;
    }
    values
}

/// How near a stored vector is to the query; `None` when they cannot be compared.
pub(super) fn similarity(
    spec: VectorSpec,
    query: &Vector,
    stored: &Vector,
    idf: &dyn Fn(u32) -> f32,
) -> Option<f32> {
    let distance = spec.distance();
    match (query, stored) {
        (Vector::Dense(query), Vector::Dense(stored)) => Some(distance.similarity(query, stored)),
        (Vector::Multi(query), Vector::Multi(stored)) => Some(max_sim(distance, query, stored)),
        (Vector::Sparse(query), Vector::Sparse(stored)) => sparse_dot(query, stored, idf),
        (Vector::Dense(_), Vector::Multi(_) | Vector::Sparse(_))
        | (Vector::Multi(_), Vector::Dense(_) | Vector::Sparse(_))
        | (Vector::Sparse(_), Vector::Dense(_) | Vector::Multi(_)) => None,
    }
}

fn max_sim(distance: Distance, query: &[Vec<f32>], stored: &[Vec<f32>]) -> f32 {
    query
        .iter()
        .map(|row| {
            stored.iter().map(|other| distance.similarity(row, other)).fold(f32::NEG_INFINITY, f32::max)
        })
        .sum()
}

/// Both are sorted by index. Vectors without a common index do not match at all.
fn sparse_dot(query: &Sparse, stored: &Sparse, idf: &dyn Fn(u32) -> f32) -> Option<f32> {
    let (mut at, mut sum, mut overlap) = (0, 0.0, false);
    for (index, value) in query.indices.iter().zip(&query.values) {
        while stored.indices.get(at).is_some_and(|other| other < index) {
            at += 1;
        }
        if stored.indices.get(at) == Some(index) {
            overlap = true;
            sum += value * idf(*index) * stored.values.get(at).copied().unwrap_or_default();
        }
    }
    overlap.then_some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cosine_is_normalised_once_and_only_once() {
        let spec = VectorSpec::Dense { size: 2, distance: Distance::Cosine, multi: false, half: false };
        let once = spec.prepare(Vector::Dense(vec![3.0, 4.0])).unwrap();
        assert_eq!(once, Vector::Dense(vec![0.6, 0.8]));
        assert_eq!(spec.prepare(once.clone()).unwrap(), once);
    }

    #[test]
    fn scores_are_those_of_the_distance() {
        let a = [1.0, 2.0];
        let b = [4.0, 6.0];
        let cases = [(Distance::Dot, 16.0), (Distance::Euclid, 5.0), (Distance::Manhattan, 7.0)];
        for (distance, expected) in cases {
            assert_eq!(distance.score(distance.similarity(&a, &b)), expected, "{distance:?}");
        }
    }

    #[test]
    fn sparse_vectors_need_a_common_index() {
        let spec = VectorSpec::Sparse { idf: false };
        let query = Vector::Sparse(Sparse { indices: vec![1, 5], values: vec![1.0, 2.0] });
        let near = Vector::Sparse(Sparse { indices: vec![5, 9], values: vec![3.0, 1.0] });
        let far = Vector::Sparse(Sparse { indices: vec![2], values: vec![1.0] });
        assert_eq!(similarity(spec, &query, &near, &|_| 1.0), Some(6.0));
        assert_eq!(similarity(spec, &query, &far, &|_| 1.0), None);
    }

    #[test]
    fn a_vector_of_the_wrong_size_is_refused() {
        let spec = VectorSpec::Dense { size: 4, distance: Distance::Dot, multi: false, half: false };
        let error = spec.prepare(Vector::Dense(vec![1.0])).unwrap_err();
        assert_eq!(error.message, "Wrong input: Vector dimension error: expected dim: 4, got 1");
    }
}
