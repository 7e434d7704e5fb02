//! What is shown of a line that is too long to be shown whole: a file may be one line.

use miette::{MietteError, MietteSpanContents, SourceCode, SourceSpan, SpanContents};

use super::{Place, floor_char_boundary};

/// A line of more bytes is not shown whole.
const LONG: usize = 400;

/// So much is shown of it on either side of the place.
const AROUND: usize = 60;

/// At most so much of the place itself is shown.
const SHOWN: usize = 120;

/// A stretch of a line around a place.
#[derive(Debug)]
pub(super) struct Excerpt<'d> {
    place: &'d Place,
    start: usize,
    end: usize,
}

impl<'d> Excerpt<'d> {
    /// The excerpt, if the line of the place, or one beside it, is long.
    pub(super) fn of_long_line(place: &'d Place) -> Option<Self> {
        let text = place.source.inner();
        let (_, line_start) = place.source.line_of(place.span.start);
        let line_end = |from: usize| {
            text.get(from..).and_then(|rest| rest.find('\n')).map_or(text.len(), |newline| from + newline)
        };
        let end = line_end(place.span.start);
        // miette also shows the lines before and behind, and all lines of the span.
        let (_, first) = place.source.line_of(line_start.saturating_sub(1));
        let last = line_end((line_end(place.span.end) + 1).min(text.len()));
        let shown = text.get(first..last)?;
        if shown.lines().all(|line| line.len() <= LONG) && shown.len() <= 10 * LONG {
            return None;
        }
        let cut_start = place.span.start.saturating_sub(AROUND).max(line_start);
        let place_end = place.span.end.min(place.span.start + SHOWN).min(end);
        Some(Excerpt {
            place,
            start: floor_char_boundary(text, cut_start),
            end: floor_char_boundary(text, (place_end + AROUND).min(end)),
        })
    }

    /// The place, as far as it lies in the excerpt.
    pub(super) fn label(&self) -> SourceSpan {
        let start = self.place.span.start;
        let end = self.place.span.end.min(start + SHOWN).min(self.end).max(start);
        SourceSpan::from((start, end - start))
    }
}

impl SourceCode for Excerpt<'_> {
    fn read_span<'a>(
        &'a self,
        span: &SourceSpan,
        before: usize,
        after: usize,
    ) -> Result<Box<dyn SpanContents<'a> + 'a>, MietteError> {
        let text = self.place.source.inner();
        // Without lines around it, what is asked for is where the place is.
        let alone = before == 0 && after == 0;
        let (start, end) =
            if alone { (span.offset(), span.offset() + span.len()) } else { (self.start, self.end) };
        let data = text.get(start..end).ok_or(MietteError::OutOfBounds)?;
        let (line, line_start) = self.place.source.line_of(start);
        let column = text.get(line_start..start).ok_or(MietteError::OutOfBounds)?.chars().count();
        let name = self.place.source.name().to_owned();
        let span = SourceSpan::from((start, end - start));
        Ok(Box::new(MietteSpanContents::new_named(name, data.as_bytes(), span, line - 1, column, 1)))
    }
}
