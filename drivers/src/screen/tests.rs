use alloc::{string::String, vec, vec::Vec};

use noto_sans_mono_bitmap::{FontWeight, RasterHeight, get_raster_width};

use super::{Canvas, Cell, Colour, Layout, Terminal};

const WIDTH: usize = get_raster_width(FontWeight::Regular, RasterHeight::Size16);

fn terminal(columns: usize, rows: usize, kept: usize) -> Terminal {
    Terminal::try_new(columns, rows, kept).unwrap()
}

/// What a canvas shows that was told of all changes.
struct Shown {
    cells: Vec<Vec<Cell>>,
    painted: usize,
}

impl Shown {
    fn new(columns: usize, rows: usize) -> Self {
        Self { cells: vec![vec![Cell::BLANK; columns]; rows], painted: 0 }
    }

    fn update(&mut self, terminal: &mut Terminal) -> usize {
        let before = self.painted;
        while terminal.changes(5, |row, column, cell| {
            self.cells[row][column] = cell;
            self.painted += 1;
        }) {}
        self.painted - before
    }

    fn text(&self) -> Vec<String> {
        let text = |row: &Vec<Cell>| row.iter().map(|cell| cell.character()).collect::<String>();
        self.cells.iter().map(|row| text(row).trim_end().into()).collect()
    }
}

fn text(terminal: &Terminal, rows: usize) -> Vec<String> {
    (0..rows).map(|row| terminal.text(row)).collect()
}

#[test]
fn lines_stand_below_each_other_and_scroll() {
    let mut terminal = terminal(8, 3, 0);
    terminal.feed(b"one\r\ntwo\r\nthree");
    assert_eq!(text(&terminal, 3), ["one", "two", "three"]);
    terminal.feed(b"\r\nfour\r\n");
    assert_eq!(text(&terminal, 3), ["three", "four", ""]);
}

#[test]
fn a_line_as_long_as_the_screen_is_followed_by_no_empty_one() {
    let mut terminal = terminal(4, 3, 0);
    terminal.feed(b"full\r\nover the");
    assert_eq!(text(&terminal, 3), ["full", "over", " the"]);
}

#[test]
fn control_characters_move_the_cursor() {
    let mut terminal = terminal(20, 2, 0);
    terminal.feed(b"abc\x08\x08X\rY\tZ");
    assert_eq!(terminal.text(0), "YXc     Z");
    terminal.feed(b"\r\x08\x08W");
    assert_eq!(terminal.text(0), "WXc     Z");
}

#[test]
fn escape_sequences_move_and_erase() {
    let mut terminal = terminal(10, 4, 0);
    terminal.feed(b"0123456789\x1b[4G\x1b[K\x1b[3;2Hhere\x1b[2D\x1b[A^\x1b[B\x1b[C$");
    assert_eq!(text(&terminal, 4), ["012", "   ^", " here$", ""]);
    terminal.feed(b"\x1b[2;1H\x1b[Jx\x1b[1;2H\x1b[1K");
    assert_eq!(text(&terminal, 4), ["  2", "x", "", ""]);
    terminal.feed(b"\x1b[2J\x1b[Hagain");
    assert_eq!(text(&terminal, 4), ["again", "", "", ""]);
    // Beyond the edges there is nothing.
    terminal.feed(b"\x1b[99;99H.\x1b[99A\x1b[99D!");
    assert_eq!(text(&terminal, 4), ["!gain", "", "", "         ."]);
}

#[test]
fn colours_are_those_that_were_asked_for() {
    let mut terminal = terminal(12, 1, 0);
    terminal.feed(
        b"a\x1b[31mb\x1b[1mc\x1b[0;44;97md\x1b[7me\x1b[27;39;49mf\x1b[38;5;9;48;2;1;2;3mg\x1b[mh\x1b[?25l",
    );
    let mut shown = Shown::new(12, 1);
    shown.update(&mut terminal);
    let cell = |character, front, back| Cell::new(character, Colour::new(front), Colour::new(back));
    let expected = [
        cell('a', 7, 0),
        cell('b', 1, 0),
        cell('c', 9, 0),
        cell('d', 15, 4),
        cell('e', 4, 15),
        cell('f', 7, 0),
        cell('g', 9, 0),
        cell('h', 7, 0),
    ];
    assert_eq!(shown.cells[0][..8], expected);
}

#[test]
fn older_lines_are_kept_and_looked_at() {
    let mut terminal = terminal(8, 3, 4);
    (0..10).for_each(|line| terminal.feed(alloc::format!("\r\nline {line}").as_bytes()));
    assert_eq!(text(&terminal, 3), ["line 7", "line 8", "line 9"]);
    terminal.look_back(1);
    assert_eq!(text(&terminal, 3), ["line 5", "line 6", "line 7"]);
    terminal.look_back(9);
    assert_eq!(text(&terminal, 3), ["line 3", "line 4", "line 5"], "no more are kept");
    terminal.look_back(-1);
    assert_eq!(text(&terminal, 3), ["line 5", "line 6", "line 7"]);
    // What is written meanwhile does not move the view.
    terminal.feed(b"\r\nline 10");
    assert_eq!(text(&terminal, 3), ["line 5", "line 6", "line 7"]);
    assert!(terminal.look_at_end() && !terminal.look_at_end());
    assert_eq!(text(&terminal, 3), ["line 8", "line 9", "line 10"]);
}

#[test]
fn nothing_is_kept_of_lines_that_never_were() {
    let mut terminal = terminal(8, 3, 4);
    terminal.feed(b"one\r\ntwo\r\nthree\r\nfour");
    terminal.look_back(5);
    assert_eq!(text(&terminal, 3), ["one", "two", "three"]);
}

#[test]
fn only_cells_that_are_others_are_painted() {
    let (mut terminal, mut shown) = (terminal(40, 10, 5), Shown::new(40, 10));
    terminal.feed(b"\x1b[?25l");
    assert_eq!(shown.update(&mut terminal), 0, "a blank screen is what there was");
    terminal.feed(b"abc def");
    assert_eq!(shown.update(&mut terminal), 6);
    terminal.feed(b"\rabc deg");
    assert_eq!(shown.update(&mut terminal), 1);
    (0..40).for_each(|_| terminal.feed(b"\r\nsame"));
    shown.update(&mut terminal);
    // Where all lines are the same, scrolling them paints nothing.
    terminal.feed(b"\r\nsame\r\nsame");
    assert_eq!(shown.update(&mut terminal), 0);
    terminal.feed(b"\r\nsane");
    assert_eq!(shown.update(&mut terminal), 1);
    assert_eq!(shown.text()[8..], ["same", "sane"]);
}

#[test]
fn the_cursor_is_shown_inverted_where_it_stands() {
    let (mut terminal, mut shown) = (terminal(4, 2, 2), Shown::new(4, 2));
    terminal.feed(b"ab");
    shown.update(&mut terminal);
    assert_eq!(shown.cells[0][2], Cell::new(' ', Colour::BLACK, Colour::GREY));
    terminal.feed(b"\x08");
    shown.update(&mut terminal);
    assert_eq!(shown.cells[0][1], Cell::new('b', Colour::BLACK, Colour::GREY));
    assert_eq!(shown.cells[0][2], Cell::BLANK);
    // It does not stand in older lines.
    terminal.feed(b"\r\n\r\n");
    terminal.look_back(1);
    shown.update(&mut terminal);
    assert_eq!(shown.cells[0][1], Cell::new('b', Colour::GREY, Colour::BLACK));
}

#[test]
fn what_is_shown_is_what_the_terminal_says_whatever_is_written() {
    let (mut terminal, mut shown) = (terminal(13, 5, 7), Shown::new(13, 5));
    let mut seed = 1_u32;
    for round in 0..3000 {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let parts: [&[u8]; 10] = [
            b"word ",
            b"\r\n",
            b"\x1b[3",
            b";2H",
            b"\x1b[K",
            b"\xff\xc3",
            b"\x1b]0;title\x07",
            b"\x1b[J",
            b"\t\x08",
            b"m\x1b[31;999999999m",
        ];
        terminal.feed(parts[(seed >> 16) as usize % parts.len()]);
        if round % 7 == 0 {
            terminal.look_back((seed >> 8) as isize % 3 - 1);
        }
        shown.update(&mut terminal);
        assert_eq!(shown.text(), text(&terminal, 5), "round {round}");
    }
}

#[test]
fn a_cell_is_painted_in_its_place_and_colours() {
    let layout = Layout { width: 20, height: 40, stride: 84, bytes_per_pixel: 4, colours: Some([16, 8, 0]) };
    let mut pixels = vec![9; 84 * 40];
    let mut canvas = Canvas::new(&mut pixels, layout).unwrap();
    assert_eq!((canvas.columns(), canvas.rows()), (20 / WIDTH, 2));
    canvas.clear(0);
    canvas.clear(1);
    canvas.paint(1, 1, Cell::new('|', Colour::new(1), Colour::new(15)));
    let width = WIDTH;
    let at = |x: usize, y: usize| &pixels[y * 84 + x * 4..][..4];
    assert_eq!(at(width, 16), [255, 255, 255, 0], "the background, blue first");
    let strokes = (16..32).flat_map(|y| (width..2 * width).map(move |x| (x, y)));
    assert!(strokes.clone().any(|(x, y)| at(x, y)[1] < 100 && at(x, y)[2] >= 205), "the stroke");
    let outside = (0..40).flat_map(|y| (0..20).map(move |x| (x, y)));
    let inside = |&(x, y): &(usize, usize)| (width..2 * width).contains(&x) && (16..32).contains(&y);
    assert!(outside.filter(|place| !inside(place)).all(|(x, y)| *at(x, y) == [0; 4]));
}

#[test]
fn pixels_of_other_lengths_are_painted_too() {
    for (bytes_per_pixel, colours, white) in
        [(3, Some([0, 8, 16]), [255, 255, 255]), (1, None, [255, 0, 0]), (2, None, [255, 0, 0])]
    {
        let stride = WIDTH * bytes_per_pixel;
        let layout = Layout { width: WIDTH, height: 16, stride, bytes_per_pixel, colours };
        let mut pixels = vec![0; stride * 16];
        Canvas::new(&mut pixels, layout).unwrap().paint(0, 0, Cell::new(' ', Colour::BLACK, Colour::new(15)));
        assert_eq!(pixels[..bytes_per_pixel], white[..bytes_per_pixel]);
    }
}

#[test]
fn a_layout_that_does_not_fit_is_none() {
    let good = Layout { width: 16, height: 16, stride: 64, bytes_per_pixel: 4, colours: None };
    let mut pixels = vec![0; 64 * 16];
    assert!(Canvas::new(&mut pixels, good).is_some());
    for bad in [
        Layout { width: 17, ..good },
        Layout { height: 17, ..good },
        Layout { height: 15, ..good },
        Layout { width: 3, ..good },
        Layout { bytes_per_pixel: 5, ..good },
        Layout { bytes_per_pixel: 0, ..good },
        Layout { height: usize::MAX, ..good },
        Layout { colours: Some([0, 8, 25]), ..good },
    ] {
        assert!(Canvas::new(&mut pixels, bad).is_none(), "{bad:?}");
    }
}
